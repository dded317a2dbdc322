"""A comparison as one picture for slides: the result in words, accuracy against format, the scores, and cautions."""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sftkey_dist.files import file_written_whole
from sftkey_dist.report.cautions import cautions
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.headline import headline
from sftkey_dist.report.numbers import UNKNOWN, number
from sftkey_dist.report.plots import GREY, draw_marker, draw_plane, literal, style
from sftkey_dist.run_dir.artifacts.evaluation import Scores
from sftkey_dist.visible import on_one_line

_INK = "#202020"
_TITLE_CHARACTERS, _MAX_TITLE_LINES = 80, 3
_CAUTION_CHARACTERS, _MAX_CAUTION_LINES = 165, 2
_NAME_CHARACTERS, _HALF_OF_NAME = 30, 14
_NAME_POINTS = 320
"""Size in points of a name that fills its column, times its number of characters."""
_TALLEST_ROW, _LARGEST_TEXT = 0.15, 19
"""Height of a row as a share of the table, and size of its text in points, if there are few rows."""
_NAMES, _COLUMNS = 0.04, {"accuracy": 0.52, "format": 0.7, "score": 0.88, "n": 1.0}
"""Where names begin, and where the other columns end, as shares of the table's width."""


def draw_slide(comparison: Comparison, file: Path) -> Path:
    """Write a PNG file of 1600 x 900 pixels on white. Equal comparisons give equal bytes."""
    figure = Figure(figsize=(16, 9), dpi=100, facecolor="white")
    figure.text(0.03, 0.95, _title(comparison), fontsize=22, color=_INK, va="top", fontweight="bold", linespacing=1.35)
    figure.text(0.03, 0.055, _cautions(comparison), fontsize=12, color=_INK, linespacing=1.2)
    figure.text(0.03, 0.022, _note(comparison), fontsize=13, color=GREY)
    plane = figure.add_axes((0.07, 0.16, 0.37, 0.62))
    style(plane, "accuracy", "format", _INK, 15)
    draw_plane(plane, comparison.measures, comparison.plane, scale=2.0)
    table = figure.add_axes((0.48, 0.1, 0.49, 0.7))
    table.set_axis_off()
    table.set_xlim(0, 1)
    table.set_ylim(0, 1)
    _draw_table(table, comparison)
    with file_written_whole(file) as scratch:
        figure.savefig(scratch, format="png", metadata={"Software": None})
    return file


def _title(comparison: Comparison) -> str:
    text = on_one_line(headline(comparison)) or f"{comparison.rows[0].dataset}: accuracy and format"
    return _in_lines(text, _TITLE_CHARACTERS, _MAX_TITLE_LINES)


def _cautions(comparison: Comparison) -> str:
    return _in_lines(on_one_line(" ".join(cautions(comparison))), _CAUTION_CHARACTERS, _MAX_CAUTION_LINES)


def _in_lines(text: str, most_characters: int, most_lines: int) -> str:
    # Names of strategies have hyphens, and are not broken.
    lines = textwrap.wrap(text, most_characters, max_lines=most_lines, placeholder=" …", break_on_hyphens=False)
    return "\n".join(map(literal, lines))


def _note(comparison: Comparison) -> str:
    alpha = f"score = {comparison.alpha:g} accuracy + {1 - comparison.alpha:g} format"
    unjudged = "; unjudged outputs count as wrong in the figure" if comparison.some_unjudged else ""
    guided = ", guided decoding" if comparison.guided else ""
    return literal(
        f"{comparison.rows[0].dataset}{guided}; {alpha}; lines and small figures are 95 % intervals{unjudged}"
    )


def _draw_table(axes: Axes, comparison: Comparison) -> None:
    """A row per strategy with the marker of its point in the figure, and each value over its interval."""
    height = min(_TALLEST_ROW, 1 / (len(comparison.rows) + 1))
    size = _LARGEST_TEXT * (height / _TALLEST_ROW) ** 0.6  # texts fill less of a tall row
    for head, end in {"strategy": None, **_COLUMNS}.items():
        place, side = (_NAMES, "left") if end is None else (end, "right")
        axes.text(place, 1 - height / 2, head, fontsize=0.8 * size, color=GREY, ha=side, va="center")
    for place, (label, row) in enumerate(zip(comparison.labels, comparison.rows, strict=True)):
        middle = 1 - height * (place + 1.5)
        weight = "bold" if label == comparison.leader else "normal"
        axes.axhline(middle + height / 2, color=GREY, linewidth=0.6, alpha=0.5)
        draw_marker(axes, place, 0.015, middle, 0.6 * size)
        name = _shortened(label)
        name_size = min(size, _NAME_POINTS / max(1, len(name)))
        axes.text(_NAMES, middle, literal(name), fontsize=name_size, color=_INK, va="center", fontweight=weight)
        _draw_scores(axes, middle, height, size, row.scores, weight)


def _draw_scores(axes: Axes, middle: float, height: float, size: float, scores: Scores, weight: str) -> None:
    """The right-aligned values of a row, each over its interval."""
    cells = {
        "accuracy": (scores.accuracy, scores.accuracy_interval),
        "format": (scores.format, scores.format_interval),
        "score": (scores.score, scores.score_interval),
    }
    for column, (value, (low, high)) in cells.items():
        end, shown = _COLUMNS[column], number(value)
        axes.text(end, middle + 0.15 * height, shown, fontsize=size, ha="right", va="center", fontweight=weight)
        if shown != UNKNOWN:
            below = f"{low:.2f} to {high:.2f}"
            axes.text(end, middle - 0.25 * height, below, fontsize=0.62 * size, color=GREY, ha="right", va="center")
    axes.text(_COLUMNS["n"], middle, f"{scores.n:,}", fontsize=size, ha="right", va="center")


def _shortened(label: str) -> str:
    """A label that fits its column: of a long one the beginning and the end."""
    shown = on_one_line(label)
    if len(shown) > _NAME_CHARACTERS:
        return f"{shown[:_HALF_OF_NAME]}…{shown[-_HALF_OF_NAME:]}"
    return shown
