"""The result of a tuning: a table for the terminal, and a page with the same table and a figure."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from sftkey_dist.files import write_text_atomically
from sftkey_dist.report.markdown import escaped, table
from sftkey_dist.report.numbers import number
from sftkey_dist.report.plots import Curve, plot_curves
from sftkey_dist.run_dir.artifacts.tuning import TuningRecord


def caution(record: TuningRecord) -> str:
    """What the best score is worth."""
    finished = sum(trial.status == "finished" for trial in record.trials)
    return (
        f"{record.metric} is measured on {record.held_out:,} held-out rows. The best of {finished} finished trials "
        f"of one seed is chosen by it, so that its value is too optimistic: a final comparison needs fresh seeds (a "
        f"study) and test sets."
    )


def tuning_table(record: TuningRecord) -> Table:
    """One line per trial, the best first."""
    heads, rows = _cells(record)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def write_tuning_page(record: TuningRecord, folder: Path, command: str) -> list[Path]:
    """Write TUNING.md and its figure into the folder of a tuning, and return both."""
    curves = {
        trial.run_dir: Curve.of([score.step for score in trial.scores], [score.value for score in trial.scores])
        for trial in record.trials
        if trial.scores
    }
    page, figures = folder / "TUNING.md", []
    if curves:
        figures = [plot_curves(curves, "optimizer step of the last stage", record.metric, folder / "tuning.svg")]
    lines = [
        f"# Tuning of {escaped(record.strategy)}",
        "",
        f"`{command}`",
        "",
        escaped(caution(record)),
        "",
        *table(*_cells(record)),
        *(line for figure in figures for line in ("", f"![{record.metric} by step]({figure.name})")),
    ]
    write_text_atomically(page, "\n".join(lines) + "\n")
    return [page, *figures]


def _cells(record: TuningRecord) -> tuple[list[str], Sequence[Sequence[str]]]:
    keys = list(record.trials[0].parameters)
    names = [key.rpartition(".")[2] for key in keys]
    heads = names if len(set(names)) == len(names) else keys
    rows = [
        [
            trial.run_dir,
            *(str(trial.parameters[key]) for key in keys),
            number(trial.score, digits=4),
            str(trial.scores[-1].step) if trial.scores else "0",
            trial.status,
        ]
        for trial in record.by_score
    ]
    return ["trial", *heads, record.metric.rpartition("/")[2], "steps", "status"], rows
