"""The command that shows a run while another command works on it."""

from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.cli.arguments import path
from sftkey_dist.cli.exits import SIGNALLED
from sftkey_dist.console import console
from sftkey_dist.errors import InterruptedRunError


def watch(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", parser=path, help="Run directory.")],
    once: Annotated[bool, typer.Option("--once", help="Print the run as it is now, and end.")] = False,
) -> None:
    """Show a run while it is trained and evaluated, from any shell that sees its folder, until it is finished.

    The stage that is being trained with its progress, time left, curves of loss, nll and accuracy per segment, the
    guard's scores, memory per rank, and ranks without a sign of life; finished stages; evaluations. Nothing is written,
    and Ctrl-C ends the view alone. Without a terminal, the run is printed once.
    """
    from sftkey_dist.watch.live import show_once, show_until_finished

    if once or not console.is_terminal:
        show_once(run_dir)
        return
    try:
        show_until_finished(run_dir)
    except InterruptedRunError as interrupt:
        raise SystemExit(SIGNALLED + interrupt.signal_number) from None
