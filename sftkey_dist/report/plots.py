"""Plots as SVG files that are readable on light and dark pages."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sftkey_dist.files import file_written_whole
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import METRICS, TIMINGS
from sftkey_dist.sampler.preview import BalancePreview
from sftkey_dist.sampler.stats import BalanceStats
from sftkey_dist.visible import on_one_line

matplotlib.rcParams["svg.hashsalt"] = "sftkey"  # makes the bytes of a plot reproducible
# Okabe and Ito's colours, which colour-blind readers can tell apart, without those that vanish on white or on black.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#A6761D")
matplotlib.rcParams["axes.prop_cycle"] = cycler(color=_COLOURS)
GREY = "#808080"
_ZERO_WIDTH = "\u200b"
_FEW_POINTS, _BINS = 40, 30
_INCHES_OF_A_LINE, _INCHES_OF_A_HANDLE, _INCHES_OF_A_LETTER = 0.22, 0.7, 0.085  # in a legend
_DASHES = ((1, 0), (6, 2), (3, 2), (8, 2, 2, 2))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
"""Of curves and strategies, by their number."""


class Curve(NamedTuple):
    """Values at optimizer steps."""

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, steps: Sequence[float], values: Sequence[float]) -> "Curve":
        """A curve from sequences of numbers."""
        return cls(np.array(steps, dtype=float), np.array(values, dtype=float))


def segment_nll_curve(stages: Sequence[StageDir], segments: Sequence[str]) -> Curve:
    """The nll in nats per token, over all given segments, at the steps that measured them, with stages concatenated."""
    steps: list[int] = []
    values: list[float] = []
    offset = 0
    for stage in stages:
        records = METRICS.read(stage.metrics)
        for record in records:
            seen = [record.segments[name] for name in segments if name in record.segments]
            tokens = sum(s.tokens for s in seen)
            if tokens:
                steps.append(offset + record.step)
                values.append(sum(s.nll * s.tokens for s in seen) / tokens)
        offset += len(records)
    return Curve.of(steps, values)


def key_nll_curve(stages: Sequence[StageDir], key_segments: Sequence[str]) -> Curve:
    """`segment_nll_curve` of the key segments."""
    return segment_nll_curve(stages, key_segments)


def throughput_curve(stages: Sequence[StageDir]) -> Curve:
    """Tokens per second by step, with stages concatenated."""
    records = [record for stage in stages for record in TIMINGS.read(stage.timings)]
    return Curve.of(range(len(records)), [record.tokens_per_second for record in records])


def waiting_curve(stages: Sequence[StageDir]) -> Curve:
    """Share of each step in which ranks wait for the slowest one, with stages concatenated."""
    records = [record for stage in stages for record in METRICS.read(stage.metrics)]
    return Curve.of(range(len(records)), [record.balance.straggler_loss for record in records])


def plot_key_nll(curves: Mapping[str, Curve], file: Path, y_label: str = "nll of key tokens [nats/token]") -> Path:
    """Plot nll against optimizer steps, raw and smoothed (the paper's loss figure)."""
    figure, axes = _figure("optimizer step, stages joined", y_label)
    for number, (strategy, (steps, values)) in enumerate(curves.items()):
        colour = f"C{number}"
        axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
        # Strategies that share a stage share its curve, so dashes keep the curve below visible.
        axes.plot(steps, _smoothed(values), label=literal(strategy), color=colour, linewidth=1.8, dashes=dashes(number))
    axes.set_yscale("log")
    return _save(figure, axes, file)


def plot_score_by_alpha(measures: Mapping[str, tuple[float, float]], alpha: float, file: Path) -> Path:
    """Plot score against alpha from (accuracy, format) of each strategy. The winner changes where lines cross."""
    figure, axes = _figure("alpha, the weight of accuracy", "score")
    for number, (strategy, (accuracy, format_share)) in enumerate(measures.items()):
        axes.plot([0, 1], [format_share, accuracy], label=literal(strategy), linewidth=1.5, dashes=dashes(number))
    axes.axvline(alpha, color=GREY, linestyle=":", linewidth=1)
    return _save(figure, axes, file)


def plot_plane(
    measures: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, tuple[tuple[float, float], tuple[float, float]]],
    file: Path,
) -> Path:
    """Plot format against accuracy of each strategy, with the intervals of both."""
    figure, axes = _figure("accuracy", "format")
    draw_plane(axes, measures, intervals)
    return _save(figure, axes, file)


def draw_plane(
    axes: Axes,
    measures: Mapping[str, tuple[float, float]],
    intervals: Mapping[str, tuple[tuple[float, float], tuple[float, float]]],
    scale: float = 1.0,
) -> None:
    """Draw `plot_plane` on axes, with lines and markers that are larger by a factor."""
    for number, (strategy, (accuracy, format_share)) in enumerate(measures.items()):
        (low, high), (lowest, highest) = intervals[strategy]
        axes.plot([low, high], [format_share, format_share], color=f"C{number}", linewidth=scale, alpha=0.6)
        axes.plot([accuracy, accuracy], [lowest, highest], color=f"C{number}", linewidth=scale, alpha=0.6)
        draw_marker(axes, number, accuracy, format_share, 7 * scale, literal(strategy))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)


def dashes(number: int) -> tuple[int, ...]:
    """The dashes of a curve by its number, which differ from those of its neighbours."""
    return _DASHES[number % len(_DASHES)]


def draw_marker(axes: Axes, number: int, x: float, y: float, size: float, label: str | None = None) -> None:
    """Draw the marker of a strategy by its number: hollow, so that one below another can be seen, of its own shape."""
    marker = MARKERS[number % len(MARKERS)]
    axes.plot(
        x, y, marker, color=f"C{number}", label=label, markersize=size, fillstyle="none", markeredgewidth=size / 4
    )


def plot_curves(curves: Mapping[str, Curve], x_label: str, y_label: str, file: Path) -> Path:
    """Plot curves, with a marker at every value if there are only a few."""
    figure, axes = _figure(x_label, y_label)
    for number, (name, (steps, values)) in enumerate(curves.items()):
        is_short = len(steps) < _FEW_POINTS
        shown = values if is_short else _smoothed(values)
        axes.plot(
            steps, shown, label=literal(name), marker="o" if is_short else "", markersize=4, dashes=dashes(number)
        )
    return _save(figure, axes, file)


def plot_histograms(values: Mapping[str, Sequence[float]], x_label: str, file: Path) -> Path:
    """Plot the distribution of a measure over outputs, one outline per strategy, with common bins."""
    figure, axes = _figure(x_label, "share of outputs")
    everything = np.concatenate([np.asarray(of, dtype=float) for of in values.values()])
    edges = np.histogram_bin_edges(everything, bins=_BINS)
    for number, (name, of) in enumerate(values.items()):
        shares, _ = np.histogram(of, bins=edges)
        axes.stairs(
            shares / len(of),
            edges,
            label=literal(name),
            color=f"C{number}",
            linewidth=1.5,
            linestyle=(0, dashes(number)),
        )
    return _save(figure, axes, file)


def plot_lengths(segment_counts: np.ndarray, segment_names: Sequence[str], file: Path) -> Path:
    """Plot the distribution of the number of tokens in each text segment; ``segment_counts`` is [N, S]."""
    figure, axes = _figure("tokens, logarithmic", "share of examples")
    counts = np.asarray(segment_counts)
    edges = np.geomspace(1, max(2, int(counts.sum(axis=1).max()) + 1), 60)
    shown = {name: counts[:, i] for i, name in enumerate(segment_names) if "." not in name and name != "end_of_turn"}
    for number, (name, column) in enumerate({"all": counts.sum(axis=1), **shown}.items()):
        if column.any():
            shares, _ = np.histogram(column[column > 0], bins=edges)
            axes.stairs(
                shares / len(counts), edges, label=literal(name), color=GREY if name == "all" else f"C{number - 1}"
            )
    axes.set_xscale("log")
    return _save(figure, axes, file)


def plot_balance(stages: Mapping[str, Sequence[BalancePreview]], file: Path) -> Path:
    """Plot for each stage, by number of ranks, max / mean of tokens and of loss weight, and the waiting time."""
    panels = {
        "tokens, fullest rank / mean": lambda balance: balance.tokens,
        "loss weight, fullest rank / mean": lambda balance: balance.loss_weight,
        "share of the time spent waiting": lambda balance: balance.straggler_loss,
    }
    figure = Figure(figsize=(4 * len(panels), 3.2 * len(stages)), layout="constrained")
    grid = figure.subplots(len(stages), len(panels), squeeze=False)
    for (stage, rows), line in zip(stages.items(), grid, strict=True):
        for (title, value), axes in zip(panels.items(), line, strict=True):
            style(axes, "data-parallel ranks", title)
            axes.set_title(literal(stage), color=GREY, fontsize=10)
            _draw_bars(axes, {side: _by_ranks(rows, side, value) for side in dict.fromkeys(row.side for row in rows)})
    return _save(figure, grid[0][0], file)


def _by_ranks(rows: Sequence[BalancePreview], side: str, value: Callable[[BalanceStats], float]) -> dict[str, float]:
    return {str(row.data_ranks): value(row.balance) for row in rows if row.side == side}


def _draw_bars(axes: Axes, values: Mapping[str, Mapping[str, float]]) -> None:
    """Draw values by name and place, a bar per name at every place. All names have the same places."""
    places, width = list(next(iter(values.values()))), 0.8 / len(values)
    for number, (name, of) in enumerate(values.items()):
        shift = (number - (len(values) - 1) / 2) * width
        axes.bar(np.arange(len(places)) + shift, list(of.values()), width, label=literal(name))
    axes.set_xticks(range(len(places)), places)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Moving average over a centred window of a tenth of the curve, which is shorter at its ends."""
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first, last = np.maximum(0, positions - half), np.minimum(len(values), positions + half + 1)
    means: np.ndarray = (sums[last] - sums[first]) / (last - first)
    return means


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.5), layout="constrained")  # small, so that its texts can be read on a phone
    axes = figure.add_subplot()
    style(axes, x_label, y_label)
    return figure, axes


def literal(text: str) -> str:
    """Escape a text for a figure, so that it is shown literally.

    A dollar sign does not start a formula, and a leading underscore or an empty name does not hide a line from the
    legend.
    """
    shown = on_one_line(text)
    return (_ZERO_WIDTH if shown.startswith("_") or not shown else "") + shown.replace("$", r"\$")


def style(axes: Axes, x_label: str, y_label: str, colour: str = GREY, size: float | None = None) -> None:
    """Label axes, and give their lines and texts a colour and a size in points."""
    axes.set_xlabel(literal(x_label), color=colour, fontsize=size)
    axes.set_ylabel(literal(y_label), color=colour, fontsize=size)
    axes.tick_params(which="both", colors=colour, labelsize=size)
    for spine in axes.spines.values():
        spine.set_color(colour)
    axes.grid(alpha=0.25)


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Add a legend below the axes, where it covers no curve, and make the figure higher by its lines."""
    columns = max(1, int(figure.get_figwidth() / (_INCHES_OF_A_HANDLE + _INCHES_OF_A_LETTER * max(map(len, names)))))
    columns = min(columns, len(names))
    figure.set_figheight(figure.get_figheight() + _INCHES_OF_A_LINE * math.ceil(len(names) / columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, labelcolor=GREY)


def _save(figure: Figure, axes: Axes, file: Path) -> Path:
    legend_below(figure, *axes.get_legend_handles_labels())
    return write(figure, file)


def write(figure: Figure, file: Path) -> Path:
    """Write a figure as it is, always with the same bytes."""
    with file_written_whole(file) as scratch:
        figure.savefig(scratch, format="svg", transparent=True, metadata={"Date": None})
    return file
