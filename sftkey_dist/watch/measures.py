"""The table of a stage's measures with their curves: loss, nll and accuracy of each segment, and the guard's scores."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sftkey_dist.console import visible
from sftkey_dist.report.numbers import number
from sftkey_dist.run_dir.artifacts.training import Observation, StepMetrics
from sftkey_dist.watch.curves import Point, curve
from sftkey_dist.watch.stage import StageState

Measured = TypeVar("Measured", StepMetrics, Observation)

_WIDTH_OF_NUMBERS, _MIN_CURVE, _MAX_CURVE = 50, 4, 40


@dataclass(frozen=True)
class Measure:
    """What was measured over the steps: a value that may have any height, or a share, or both.

    Attributes:
        name: of the measure.
        values: values that are drawn on a logarithmic scale of their own.
        shares: values from 0 to 1.
    """

    name: str
    values: Sequence[Point] = ()
    shares: Sequence[Point] = ()


def measures_of(stage: StageState) -> list[Measure]:
    """All measures of a stage that has done a step. Parts of segments, such as tags, are left out."""
    names = dict.fromkeys(name for step in stage.steps for name in step.segments if "." not in name)
    found = [Measure("loss", _points(stage.steps, lambda step: step.loss))]
    for name in names:
        measured = [(step.step, step.segments[name]) for step in stage.steps if name in step.segments]
        nlls = [Point(step, of.nll) for step, of in measured]
        found.append(Measure(name, nlls, [Point(step, of.token_accuracy) for step, of in measured]))
    seen = stage.observations
    found += [
        Measure("held-out loss", _points(seen, lambda each: each.validation.loss if each.validation else None)),
        Measure("guard: score", (), _points(seen, lambda each: each.guard.score if each.guard else None)),
        Measure("guard: accuracy", (), _points(seen, lambda each: each.guard.accuracy if each.guard else None)),
        Measure("guard: format", (), _points(seen, lambda each: each.guard.format if each.guard else None)),
    ]
    return [measure for measure in found if measure.values or measure.shares]


def measures_table(stage: StageState, console: Console) -> Table:
    """The measures, with curves that fit the console."""
    width = max(_MIN_CURVE, min(_MAX_CURVE, (console.width - _WIDTH_OF_NUMBERS) // 2))
    is_ascii = console.options.ascii_only
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"step 1 to {stage.steps_done:,}")
    for title in ("loss, nll", "accuracy, score"):
        table.add_column("first", justify="right", style="dim")
        table.add_column("now", justify="right")
        table.add_column(title, no_wrap=True, width=width)
    for measure in measures_of(stage):
        losses = curve(measure.values, stage.steps_done, width, is_logarithmic=True, is_ascii=is_ascii)
        shares = curve(measure.shares, stage.steps_done, width, bounds=(0.0, 1.0), is_ascii=is_ascii)
        name = visible(Text(measure.name))
        table.add_row(name, *_ends(measure.values), losses, *_ends(measure.shares), shares)
    return table


def _ends(points: Sequence[Point]) -> tuple[str, str]:
    """The first and the last value."""
    return (number(points[0].value), number(points[-1].value)) if points else ("", "")


def _points(records: Iterable[Measured], value: Callable[[Measured], float | None]) -> list[Point]:
    """The values of the records that have one."""
    return [Point(record.step, found) for record in records if (found := value(record)) is not None]
