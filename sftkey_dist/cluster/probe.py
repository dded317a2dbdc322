"""`python -m sftkey_dist.cluster.probe HOST:PORT` prints why no Ray cluster answers there, or nothing if one does.

It runs in a separate process because Ray's client waits in a call that signals cannot interrupt, and crashes an
interpreter that exits during that call.
"""

import sys

from ray._raylet import GcsClient  # type: ignore[attr-defined]

if __name__ == "__main__":
    try:
        GcsClient(address=sys.argv[1])
    except Exception as error:  # Ray raises many kinds of errors here
        print(str(error) or type(error).__name__)
