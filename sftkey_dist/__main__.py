"""``python -m sftkey_dist`` is `sftkey`. Jobs use it, because the console script may not be on their path."""

from sftkey_dist.cli import main

if __name__ == "__main__":
    main()
