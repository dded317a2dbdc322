"""`python -m sftkey_dist.cluster_probe HOST:PORT` prints why no Ray cluster answers there, or nothing if one does.

It is a process of its own because Ray's client waits in a call that no signal ends, and crashes an interpreter that
ends meanwhile.
"""

import sys

from ray._raylet import GcsClient  # type: ignore[attr-defined]

if __name__ == "__main__":
    try:
        GcsClient(address=sys.argv[1])
    except Exception as error:  # Ray's own, by what is wrong
        print(str(error) or type(error).__name__)
