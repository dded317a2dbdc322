"""Plots of studies: values over seeds, and differences with their intervals."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sftkey_dist.evaluation.statistics import Interval
from sftkey_dist.report.plots import GREY, MARKERS, dashes, legend_below, literal, style, write

MAX_BANDS = 7
"""Number of colours."""


class Difference(NamedTuple):
    """A difference with its interval, whose bounds may be nan, and whether it is beyond chance."""

    name: str
    value: float
    interval: Interval
    is_found: bool


def plot_differences(differences: Sequence[Difference], x_label: str, file: Path) -> Path:
    """Plot differences, one below the other, beside a line at zero; those beyond chance in colour."""
    figure = Figure(figsize=(7.0, 0.9 + 0.4 * len(differences)), layout="constrained")
    axes = figure.subplots()
    style(axes, x_label, "")
    for place, of in enumerate(differences):
        colour = "C0" if of.is_found else GREY
        axes.plot(of.interval, [place, place], color=colour, linewidth=2)
        axes.plot(of.value, place, "o", color=colour, markersize=6)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(differences)), [literal(of.name) for of in differences])
    axes.invert_yaxis()
    return write(figure, file)


class Place(NamedTuple):
    """A value with its interval, whose bounds may be nan, at a place of an axis."""

    x: float
    value: float
    interval: Interval


def plot_places(panels: Mapping[str, Mapping[str, Sequence[Place]]], x_label: str, file: Path) -> Path:
    """Plot values along a logarithmic axis: a panel per measure, and a curve with intervals per name."""
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    of_panels = figure.subplots(1, len(panels), squeeze=False)[0]
    measured = sorted({place.x for curves in panels.values() for places in curves.values() for place in places})
    for (y_label, curves), axes in zip(panels.items(), of_panels, strict=True):
        style(axes, x_label, y_label)
        axes.axhline(0, color=GREY, linewidth=1)
        for number, (name, places) in enumerate(curves.items()):
            # Curves stand slightly apart, so that intervals at the same place do not hide each other.
            xs = [place.x * 1.03 ** (number - (len(curves) - 1) / 2) for place in places]
            below, above = (
                [0.0 if math.isnan(place.interval[0]) else abs(place.interval[end] - place.value) for place in places]
                for end in (0, 1)
            )
            axes.errorbar(
                xs,
                [place.value for place in places],
                yerr=(below, above),
                label=literal(name),
                color=f"C{number}",
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                capsize=2,
            )
        axes.set_xscale("log")
        axes.set_xticks(measured, [f"{x:.2g}" for x in measured])
        axes.minorticks_off()
    legend_below(figure, *of_panels[0].get_legend_handles_labels())
    return write(figure, file)


class Band(NamedTuple):
    """Values at optimizer steps, [P]: their mean over seeds, the lowest and the highest."""

    steps: np.ndarray
    mean: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, steps: Sequence[float], values: Sequence[Sequence[float]]) -> "Band":
        """The band of a curve per seed."""
        by_seed = np.array(values, dtype=float)
        return cls(np.array(steps, dtype=float), by_seed.mean(0), by_seed.min(0), by_seed.max(0))


def plot_bands(panels: Mapping[str, Mapping[str, Mapping[str, Band]]], x_label: str, file: Path) -> Path:
    """Plot bands by measure, group and name: a row of panels per measure, with a logarithmic axis, a column per group.

    Args:
        panels: in every measure the same groups, with at most `MAX_BANDS` names.
        x_label: of the steps.
        file: to be written.
    """
    names = list(dict.fromkeys(name for groups in panels.values() for of in groups.values() for name in of))
    groups = list(dict.fromkeys(group for of_measure in panels.values() for group in of_measure))
    size = (1.5 + 3.2 * len(groups), 1.2 + 2.6 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(len(panels), len(groups), squeeze=False, sharex="col", sharey="row"))
    for (y_label, of_measure), row in zip(panels.items(), grid, strict=True):
        for group, axes in zip(groups, row, strict=True):
            style(axes, x_label if row is grid[-1] else "", y_label if axes is row[0] else "")
            for name, band in of_measure.get(group, {}).items():
                _draw_band(axes, names.index(name), band)
            axes.set_yscale("log")
            axes.minorticks_off()  # they would be most of the file
    for group, axes in zip(groups, grid[0], strict=True):
        axes.set_title(literal(group), color=GREY, fontsize=10)
    handles = [Line2D([], [], color=f"C{number}", dashes=dashes(number)) for number in range(len(names))]
    legend_below(figure, handles, list(map(literal, names)))
    return write(figure, file)


def _draw_band(axes: Axes, number: int, band: Band) -> None:
    axes.fill_between(band.steps, band.lowest, band.highest, color=f"C{number}", alpha=0.15, linewidth=0)
    # Strategies that share a stage share its curve, so dashes keep the curve below visible.
    axes.plot(band.steps, band.mean, color=f"C{number}", linewidth=1.5, dashes=dashes(number))


def plot_seeds(values: Mapping[str, Mapping[str, Sequence[float]]], y_label: str, file: Path) -> Path:
    """Plot values by group and name: a dot per seed, a bar at their mean, and a panel per group."""
    widths = [max(2, len(of)) for of in values.values()]
    figure = Figure(figsize=(1.5 + 0.75 * sum(widths), 4.2), layout="constrained")
    panels = figure.subplots(1, len(values), squeeze=False, width_ratios=widths, sharey=True)[0]
    for (group, of), axes in zip(values.items(), panels, strict=True):
        style(axes, "", y_label if axes is panels[0] else "")
        axes.set_title(literal(group), color=GREY, fontsize=10)
        for place, seeds in enumerate(of.values()):
            axes.plot([place] * len(seeds), seeds, "o", color=f"C{place % 10}", markersize=4, alpha=0.6)
            axes.plot([place - 0.3, place + 0.3], [np.mean(seeds)] * 2, color=f"C{place % 10}", linewidth=2)
        axes.set_xticks(range(len(of)), list(map(literal, of)), rotation=60, ha="right")
    return write(figure, file)
