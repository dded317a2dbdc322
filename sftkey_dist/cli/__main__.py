"""``python -m sftkey_dist.cli``, which jobs use, because the console script may not be on the path."""

from sftkey_dist.cli import main

if __name__ == "__main__":
    main()
