"""Commands that keep trackers up to date: the group `track`."""

from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.cli.arguments import path
from sftkey_dist.console import console
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.lock import locked_run

track = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Keep trackers up to date.")


@track.command()
def sync(run_dir: Annotated[Path, typer.Argument(metavar="RUN", parser=path, help="Run directory.")]) -> None:
    """Upload the metrics of a run that its trackers lack, each once, after an outage or to a new server."""
    from sftkey_dist.pipeline.tracking.sync import sync as sync_run

    with locked_run(RunDir(run_dir)):
        missing = sync_run(run_dir)
    console.print(f"{missing:,} metric points were missing", markup=False)
