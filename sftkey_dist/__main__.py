"""``python -m sftkey_dist`` is `sftkey`. Jobs use it, because the console script may not be on their path."""

import signal


def main() -> None:
    """Entry point of the `sftkey` script. Ctrl-C ends it without a traceback also while libraries are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a signal that a shell ignores stays ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sftkey_dist.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
