"""Plots as SVG files, readable on light and dark pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sftkey_dist.journal import read_records
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler.preview import BalancePreview

matplotlib.rcParams["svg.hashsalt"] = "sftkey"  # the same plot is the same bytes
_GREY = "#808080"
_DASHES = ((1, 0), (6, 2), (3, 2), (8, 2, 2, 2))

Curve = tuple[np.ndarray, np.ndarray]


def key_nll_curve(stages: Sequence[StageDir], key_segments: Sequence[str]) -> Curve:
    """Optimizer steps, stages joined, and the nll per key token in nats at each of them."""
    steps: list[int] = []
    values: list[float] = []
    offset = 0
    for stage in stages:
        records = read_records(stage.metrics)
        for record in records:
            observed = [record["segments"][name] for name in key_segments if name in record["segments"]]
            if observed:
                steps.append(offset + record["step"])
                values.append(sum(s["nll"] * s["tokens"] for s in observed) / sum(s["tokens"] for s in observed))
        offset += len(records)
    return np.array(steps), np.array(values)


def plot_key_nll(curves: Mapping[str, Curve], file: Path) -> Path:
    """Nll of key tokens against optimizer steps, as it is and smoothed (the paper's loss figure)."""
    figure, axes = _figure("optimizer step, stages joined", "nll of key tokens [nats/token]")
    for number, (strategy, (steps, values)) in enumerate(curves.items()):
        colour = f"C{number}"
        axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
        # Strategies that share a stage share its curve: dashes let the one below show.
        axes.plot(steps, _smoothed(values), label=strategy, color=colour, linewidth=1.8, dashes=_DASHES[number % 4])
    axes.set_yscale("log")
    return _save(figure, axes, file)


def plot_score_by_alpha(measures: Mapping[str, tuple[float, float]], alpha: float, file: Path) -> Path:
    """Score against alpha from (accuracy, format) of each strategy: where lines cross, the winner changes."""
    figure, axes = _figure("alpha, the weight of accuracy", "score")
    for strategy, (accuracy, format_share) in measures.items():
        axes.plot([0, 1], [format_share, accuracy], label=strategy, linewidth=1.5)
    axes.axvline(alpha, color=_GREY, linestyle=":", linewidth=1)
    return _save(figure, axes, file)


def plot_lengths(segment_counts: np.ndarray, segment_names: Sequence[str], file: Path) -> Path:
    """How many examples have how many tokens in each text segment; ``segment_counts`` [N, S]."""
    figure, axes = _figure("tokens, logarithmic", "share of examples")
    counts = np.asarray(segment_counts)
    edges = np.geomspace(1, max(2, int(counts.sum(axis=1).max()) + 1), 60)
    shown = {name: counts[:, i] for i, name in enumerate(segment_names) if "." not in name and name != "end_of_turn"}
    for number, (name, column) in enumerate({"all": counts.sum(axis=1), **shown}.items()):
        if column.any():
            shares, _ = np.histogram(column[column > 0], bins=edges)
            axes.stairs(shares / len(counts), edges, label=name, color=_GREY if name == "all" else f"C{number - 1}")
    axes.set_xscale("log")
    return _save(figure, axes, file)


def plot_balance(stages: Mapping[str, Sequence[BalancePreview]], file: Path) -> Path:
    """For each stage, by number of ranks: fullest rank over the mean, in tokens and loss weight, and time waited."""
    panels = {
        "tokens, fullest rank / mean": lambda balance: balance.tokens,
        "loss weight, fullest rank / mean": lambda balance: balance.loss_weight,
        "share of the time spent waiting": lambda balance: balance.straggler_loss,
    }
    figure = Figure(figsize=(4 * len(panels), 3.2 * len(stages)), layout="constrained")
    grid = figure.subplots(len(stages), len(panels), squeeze=False)
    for (stage, rows), line in zip(stages.items(), grid, strict=True):
        for (title, value), axes in zip(panels.items(), line, strict=True):
            _style(axes, "data-parallel ranks", title)
            axes.set_title(stage, color=_GREY, fontsize=10)
            for side in dict.fromkeys(row.side for row in rows):
                points = [(row.data_ranks, value(row.balance)) for row in rows if row.side == side]
                axes.plot(*zip(*points, strict=True), label=side, marker="o", markersize=4, linewidth=1.5)
            axes.set_xscale("log", base=2)
    return _save(figure, grid[0][0], file)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a tenth of the curve, shorter at its ends."""
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first, last = np.maximum(0, positions - half), np.minimum(len(values), positions + half + 1)
    means: np.ndarray = (sums[last] - sums[first]) / (last - first)
    return means


def _figure(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, x_label, y_label)
    return figure, axes


def _style(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=_GREY)
    axes.set_ylabel(y_label, color=_GREY)
    axes.tick_params(colors=_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    axes.grid(alpha=0.25)


def _save(figure: Figure, axes: Any, file: Path) -> Path:
    axes.legend(frameon=False, labelcolor=_GREY)
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file
