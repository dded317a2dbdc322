"""The command line, with one thin function per command.

Commands import their implementation only when they run, so that `--help` and the message about a mistyped key do not
wait ten seconds for torch, Ray, DeepSpeed and MLflow.
"""

import gc
import os
from typing import Annotated

from sftkey_dist.startup import loading_libraries

with loading_libraries():
    import typer

    from sftkey_dist import release
    from sftkey_dist.cli.configuration_keys import keys_help
    from sftkey_dist.cli.execution import evaluate, prepare, run, train
    from sftkey_dist.cli.exits import user_errors_printed
    from sftkey_dist.cli.inspection import plan, preflight, show
    from sftkey_dist.cli.jobs import job, submit
    from sftkey_dist.cli.parity import parity
    from sftkey_dist.cli.publishing import push
    from sftkey_dist.cli.results import compare, diagnose, results
    from sftkey_dist.cli.segmentation import segment
    from sftkey_dist.cli.tracking import track
    from sftkey_dist.cli.tuning import tune
    from sftkey_dist.cli.watching import watch
    from sftkey_dist.config import RunConfig
    from sftkey_dist.config.segment import SegmentConfig
    from sftkey_dist.console import write_what_the_terminal_can_show
    from sftkey_dist.interrupts import raise_on_signals

_OBJECTS_BETWEEN_COLLECTIONS = (100_000, 20, 50)
"""Thresholds of the garbage collector. Imports create most objects of a driver, and with the default thresholds
scanning them took a quarter of the import time."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    help="SFTKey-Tag on Ray and DeepSpeed: fine-tune on the whole tagged response, then on its answer alone.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"sftkey_dist {release.version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself; the help of the program is above."""


# In the order of the help.
app.command(epilog=keys_help(RunConfig))(run)
app.command()(prepare)
app.command()(show)
app.command(epilog=keys_help(SegmentConfig))(segment)
for command in (plan, preflight, train, tune, watch, evaluate, compare, diagnose, results, push, parity, submit):
    app.command()(command)
app.add_typer(track, name="track")
app.add_typer(job, name="job")


def main() -> None:
    """Entry point of the `sftkey` script: prints a user's error as one line on stderr and exits with code 2."""
    # The driver computes nothing. Without this, DeepSpeed would search for an accelerator and warn that there is none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    gc.set_threshold(*_OBJECTS_BETWEEN_COLLECTIONS)
    write_what_the_terminal_can_show()
    raise_on_signals()
    try:
        with user_errors_printed():
            app()
    finally:
        gc.freeze()  # Python searches all other objects for garbage when it ends; torch's took almost two seconds
