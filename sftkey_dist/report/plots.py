"""Plots as SVG files, readable on light and dark pages."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sftkey_dist.run_dir import StageDir

matplotlib.rcParams["svg.hashsalt"] = "sftkey"  # the same plot is the same bytes
_GREY = "#808080"


def plot_answer_nll(stages_of: Mapping[str, Sequence[StageDir]], file: Path) -> Path:
    """Answer nll against optimizer steps, stages of a strategy one after another (the paper's loss figure)."""
    figure, axes = _figure("optimizer step, stages joined", "answer nll [nats/token]")
    for strategy, stages in stages_of.items():
        steps, values = _answer_curve(stages)
        axes.plot(steps, values, label=strategy, linewidth=1.5)
    axes.set_yscale("log")
    return _save(figure, axes, file)


def plot_score_by_alpha(measures: Mapping[str, tuple[float, float]], alpha: float, file: Path) -> Path:
    """Score against alpha from (accuracy, format) of each strategy: where lines cross, the winner changes."""
    figure, axes = _figure("alpha, the weight of accuracy", "score")
    for strategy, (accuracy, format_share) in measures.items():
        axes.plot([0, 1], [format_share, accuracy], label=strategy, linewidth=1.5)
    axes.axvline(alpha, color=_GREY, linestyle=":", linewidth=1)
    return _save(figure, axes, file)


def _answer_curve(stages: Sequence[StageDir]) -> tuple[list[int], list[float]]:
    steps: list[int] = []
    values: list[float] = []
    offset = 0
    for stage in stages:
        records = [json.loads(line) for line in stage.metrics.read_text(encoding="utf-8").splitlines()]
        for record in records:
            if "answer" in record["segments"]:
                steps.append(offset + record["step"])
                values.append(record["segments"]["answer"]["nll"])
        offset += len(records)
    return steps, values


def _figure(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=_GREY)
    axes.set_ylabel(y_label, color=_GREY)
    axes.tick_params(colors=_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    axes.grid(alpha=0.25)
    return figure, axes


def _save(figure: Figure, axes: Any, file: Path) -> Path:
    axes.legend(frameon=False, labelcolor=_GREY)
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file
