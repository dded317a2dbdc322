"""Keeps the view of a run up to date in a terminal."""

import time
from contextlib import suppress
from pathlib import Path

from rich.live import Live

from sftkey_dist.console import console
from sftkey_dist.watch.run import RunWatch
from sftkey_dist.watch.view import render

_SECONDS_BETWEEN_FRAMES = 1.0


def show_once(path: Path) -> None:
    """Print one frame.

    Raises:
        ConfigError: there is no run.
        DataError: a file of the run is damaged.
    """
    console.print(render(RunWatch(path).look(), console))


def show_until_finished(path: Path) -> None:
    """Show the run on the whole terminal until it is finished, and print the last frame when the view ends.

    Raises:
        ConfigError: there is no run, or it was removed.
        DataError: a file of the run is damaged.
        InterruptedRunError: a signal ended the view.
    """
    run = RunWatch(path)
    state = run.look()
    try:
        if not state.is_finished:
            with Live(render(state, console), console=console, screen=True, auto_refresh=False) as live:
                while not state.is_finished:
                    time.sleep(_SECONDS_BETWEEN_FRAMES)
                    with suppress(OSError):  # shared storage may fail for a while, and files may just be replaced
                        state = run.look()
                        live.update(render(state, console), refresh=True)
    finally:
        console.print(render(state, console))
