"""Figures of a study: differences of strategies along an axis, such as the share of the answer in the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.config.study import CurvesConfig, PointConfig
from sftkey_dist.evaluation.crossed import CrossedMean
from sftkey_dist.evaluation.over_seeds import Mean, PairedMean
from sftkey_dist.report.markdown import escaped, table
from sftkey_dist.report.study.evidence import Evidence, Result
from sftkey_dist.report.study.plots import Place, plot_places
from sftkey_dist.report.study.seed_cells import crossed, crossed_cell, difference_cell, paired


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
    """A figure's curves, as far as they could be measured.

    Attributes:
        config: what was to be measured.
        series: points by the name of their curve.
        left_out: a line for every point that could not be measured.
    """

    config: CurvesConfig
    series: dict[str, list[Point]]
    left_out: list[str]

    @property
    def has_points(self) -> bool:
        """Whether there is anything to draw."""
        return any(self.series.values())


def measured_curves(study: Evidence) -> list[Curves]:
    """The figures of a study.

    Raises:
        DataError: a point names a strategy that does not exist.
    """
    found = []
    for config in study.facts.curves:
        points = {name: [_measured(study, point) for point in of_curve] for name, of_curve in config.series.items()}
        series = {name: [point for point in of if isinstance(point, Point)] for name, of in points.items()}
        found.append(
            Curves(config, series, [point for of in points.values() for point in of if isinstance(point, str)])
        )
    return found


def plot_measured(curves: Curves, file: Path) -> Path:
    """Draw the differences in accuracy and in format, with their intervals."""
    measures: dict[str, Callable[[Point], CrossedMean | Mean]] = {
        "difference in accuracy": lambda point: point.accuracy,
        "difference in format": lambda point: point.format.mean,
    }
    panels = {
        label: {
            name: [Place(point.x, of(point).value, of(point).interval) for point in points]
            for name, points in curves.series.items()
        }
        for label, of in measures.items()
    }
    return plot_places(panels, curves.config.x_label, file)


def curves_section(curves: Curves, figure: Path | None) -> list[str]:
    """Lines of Markdown: the question, the figure and its numbers.

    Args:
        curves: what was measured.
        figure: of the curves, relative to the page; None if there is no point.
    """
    left_out = [f"Not measured: {escaped('; '.join(curves.left_out))}.", ""] if curves.left_out else []
    shown = [] if figure is None else _shown(curves, figure)
    return [f"### {escaped(curves.config.question)}", "", *shown, *left_out]


def _shown(curves: Curves, figure: Path) -> list[str]:
    rows = [
        [name, f"{point.x:.3g}", point.first, point.second, crossed_cell(point.accuracy), difference_cell(point.format)]
        for name, points in curves.series.items()
        for point in points
    ]
    heads = ["curve", curves.config.x_label, "first", "second", "accuracy, first - second", "format, first - second"]
    return [
        f"![differences in accuracy and format]({figure.as_posix()})",
        "",
        "Differences in accuracy are over seeds and questions, those in format over seeds. Their intervals are not"
        " corrected for the number of points.",
        "",
        *table(heads, rows),
        "",
    ]


def _measured(study: Evidence, point: PointConfig) -> Point | str:
    """The point, or why it is left out."""
    name = f"{point.first} - {point.second}"
    sides = [point.first, point.second, *([point.x] if isinstance(point.x, str) else [])]
    if waiting := [side for side in sides if not study.may_know(side)]:
        return f"{name} (no run of {', '.join(waiting)} is done)"
    first, second = (study.of(side, "curves") for side in (point.first, point.second))
    accuracy = crossed(first, second)
    in_format = paired(first, second, "format")
    if accuracy is None or in_format is None:
        return f"{name} (it takes two seeds with the recorded outcomes of the same questions)"
    return Point(_place(study, point.x), point.first, point.second, accuracy, in_format)


def _place(study: Evidence, x: float | str) -> float:
    return _share_of_loss_tokens(next(iter(study.of(x, "curves").values()))) if isinstance(x, str) else x


def _share_of_loss_tokens(result: Result) -> float:
    first, last = result.stages[0], result.stages[-1]
    return (last.loss_tokens / last.steps) / (first.loss_tokens / first.steps)
