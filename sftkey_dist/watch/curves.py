"""Curves of one line for a terminal."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"


class Point(NamedTuple):
    """A value and the number of optimizer steps at which it was measured."""

    step: int
    value: float


def curve(
    points: Sequence[Point],
    num_steps: int,
    width: int,
    *,
    bounds: tuple[float, float] | None = None,
    is_logarithmic: bool = False,
    is_ascii: bool = False,
) -> str:
    """Draw values as a line of blocks over the steps from 0 to ``num_steps``.

    Each character shows the mean of the values measured in its steps, or the value before if there is none. Values that
    are not finite are left out.

    Args:
        points: the values, by increasing step.
        num_steps: the step at the right end.
        width: number of characters.
        bounds: the lowest and the highest value that can be drawn; None for those of the values.
        is_logarithmic: whether the height is the logarithm of the value, if all values are positive.
        is_ascii: whether only ASCII can be shown.
    """
    columns = _columns([point for point in points if math.isfinite(point.value)], num_steps, width)
    if is_logarithmic and all(value > 0 for value in columns.values()):
        columns = {column: math.log(value) for column, value in columns.items()}
    if not columns:
        return ""
    low, high = bounds or (min(columns.values()), max(columns.values()))
    blocks, shown = _ASCII if is_ascii else _BLOCKS, " "
    line = []
    for column in range(width):
        if column in columns:
            shown = _block(columns[column], low, high, blocks)
        line.append(shown)
    return "".join(line)


def _columns(points: Sequence[Point], num_steps: int, width: int) -> dict[int, float]:
    """The mean of the values in each column that has one."""

    def column(point: Point) -> int:
        return min(width - 1, point.step * width // max(1, num_steps))

    groups = {place: [point.value for point in group] for place, group in groupby(points, column)}
    return {place: sum(values) / len(values) for place, values in groups.items()}


def _block(value: float, low: float, high: float, blocks: str) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return blocks[max(0, min(len(blocks) - 1, int(share * len(blocks))))]
