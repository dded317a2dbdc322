"""Figures of a study: differences of strategies along an axis, such as the share of the answer in the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.config.study import CurvesConfig, PointConfig
from sftkey_dist.evaluation.crossed import CrossedMean, crossed_difference
from sftkey_dist.evaluation.over_seeds import PairedMean
from sftkey_dist.report.evidence import Evidence, Result, recorded_outcomes
from sftkey_dist.report.markdown import Markdown, bold, escaped, table
from sftkey_dist.report.seed_cells import difference_cell, paired
from sftkey_dist.report.study_plots import Place, plot_places


@dataclass(frozen=True)
class Point:
    """A point of a curve.

    Attributes:
        x: place on the axis.
        first: the first side, as `variant/strategy`.
        second: the side that is subtracted.
        accuracy: difference, over seeds and questions.
        format: difference over seeds.
    """

    x: float
    first: str
    second: str
    accuracy: CrossedMean
    format: PairedMean


@dataclass(frozen=True)
class Curves:
    """A figure's curves, as far as they could be measured: points by the name of their curve."""

    config: CurvesConfig
    series: dict[str, list[Point]]


def measured_curves(study: Evidence) -> list[Curves]:
    """The figures of a study that have at least one point.

    Raises:
        DataError: a point names a strategy that does not exist.
    """
    found = []
    for config in study.facts.curves:
        series = {name: _measured(study, points) for name, points in config.series.items()}
        if any(series.values()):
            found.append(Curves(config, series))
    return found


def plot_measured(curves: Curves, file: Path) -> Path:
    """Draw the differences in accuracy and in format, with their intervals."""
    accuracy = {
        name: [Place(point.x, point.accuracy.value, point.accuracy.interval) for point in points]
        for name, points in curves.series.items()
    }
    in_format = {
        name: [Place(point.x, point.format.mean.value, point.format.mean.interval) for point in points]
        for name, points in curves.series.items()
    }
    panels = {"difference in accuracy": accuracy, "difference in format": in_format}
    return plot_places(panels, curves.config.x_label, file)


def curves_section(curves: Curves, figure: Path) -> list[str]:
    """Lines of Markdown: the question, the figure and its numbers.

    Args:
        curves: what was measured.
        figure: of the curves, relative to the page.
    """
    rows = [
        [name, f"{point.x:.3g}", point.first, point.second, _accuracy(point.accuracy), difference_cell(point.format)]
        for name, points in curves.series.items()
        for point in points
    ]
    heads = ["curve", curves.config.x_label, "first", "second", "accuracy, first - second", "format, first - second"]
    return [
        f"### {escaped(curves.config.question)}",
        "",
        f"![differences in accuracy and format]({figure.as_posix()})",
        "",
        "Differences in accuracy are over seeds and questions, those in format over seeds. Their intervals are not"
        " corrected for the number of points.",
        "",
        *table(heads, rows),
        "",
    ]


def _measured(study: Evidence, points: Sequence[PointConfig]) -> list[Point]:
    found = []
    for point in points:
        if not (study.may_know(point.first) and study.may_know(point.second)):
            continue
        first, second = study.of(point.first), study.of(point.second)
        accuracy = crossed_difference(recorded_outcomes(first), recorded_outcomes(second))
        in_format = paired(first, second, "format")
        x = _place(study, point.x)
        if accuracy is not None and in_format is not None and x is not None:
            found.append(Point(x, point.first, point.second, accuracy, in_format))
    return found


def _place(study: Evidence, x: float | str) -> float | None:
    if isinstance(x, str):
        return _share_of_loss_tokens(next(iter(study.of(x).values()))) if study.may_know(x) else None
    return x


def _share_of_loss_tokens(result: Result) -> float:
    first, last = result.stages[0], result.stages[-1]
    return (last.loss_tokens / last.steps) / (first.loss_tokens / first.steps)


def _accuracy(of: CrossedMean) -> str:
    if of.p_value is None:
        return f"{of.value:+.3f}"
    low, high = of.interval
    value = f"{of.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return Markdown(f"{bold(value) if of.p_value < 0.05 else value}, p {of.p_value:.3f}")
