"""The command that turns whole responses into segments."""

from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.cli.arguments import path, separate_overrides
from sftkey_dist.config import load_section
from sftkey_dist.config.data import FILE_FORMATS, SourceConfig
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.console import console


def segment(
    source: Annotated[
        str, typer.Argument(metavar="IN", help=f"File of rows ({', '.join(FILE_FORMATS)}) or hub data set.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", parser=path, help="JSON Lines file (.jsonl) for the segmented rows.")
    ],
    configuration: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG...] [KEY=VALUE...]", help="YAML files and overrides with the keys below."),
    ] = None,
    response_column: Annotated[str, typer.Option(help="Column of the response.")] = "response",
    rules: Annotated[
        str | None,
        typer.Option(
            help="Short for rules=[…]: default (all of these), hash_marks, think, boxed, answer_is, option_letter, "
            "last_line, separated by commas, the most trusted first. Their answers must agree."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a hub data set.")] = "train",
) -> None:
    """Segment whole responses by rules and, if configured, by a language model. Every result is verified.

    Writes OUT, OUT.report.json (coverage by rule, failures by reason, text that was left out, samples) and
    OUT.review.jsonl (unsure rows with the answers that were found). To review a row, fill in or correct its segments,
    set accept to true, and run the same command again.
    """
    files, overrides = separate_overrides(configuration or [])
    config = load_section(SegmentConfig, files, [*overrides, *([f"rules=[{rules}]"] if rules else [])])
    from sftkey_dist.console import progress_when_known
    from sftkey_dist.data.segmenting.run import segment_file
    from sftkey_dist.report.tables import segment_table

    rows = SourceConfig(adapter="records", path=source, split=split)
    with progress_when_known("segmenting") as progress:
        report, written = segment_file(rows, response_column, out, config, progress)
    console.print(segment_table(report))
    for reason, found in report.examples.items():
        console.print(f"{reason}, for example {found[0]}", soft_wrap=True, markup=False)
    for file in (written.out, written.report, written.review):
        console.print(f"written: {file}", soft_wrap=True, markup=False)
