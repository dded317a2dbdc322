"""One row a strategy: what it scored, with intervals, and what its stages cost."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.errors import DataError
from sftkey_dist.files import write_json_atomically, write_text_atomically
from sftkey_dist.report.plots import key_nll_curve, plot_key_nll, plot_score_by_alpha
from sftkey_dist.run_dir import RunDir, StageDir

Interval = tuple[float, float]


@dataclass(frozen=True)
class StageCost:
    """What one stage took; ``shared_with`` names the strategy in whose row its cost is counted."""

    name: str
    path: str
    steps: int
    train_seconds: float
    tokens: int
    loss_tokens: int
    world_size: int
    shared_with: str | None


@dataclass(frozen=True)
class ComparisonRow:
    """One strategy of one run."""

    run_dir: str
    strategy: str
    dataset: str
    n: int
    accuracy: float
    format: float
    score: float
    alpha: float
    unjudged: int
    truncated: int
    accuracy_interval: Interval
    format_interval: Interval
    score_interval: Interval
    violations: dict[str, int]
    key_segments: tuple[str, ...]
    stages: tuple[StageCost, ...]
    mlflow_run_id: str | None

    @property
    def train_seconds(self) -> float:
        """Seconds of training behind this strategy's model, shared stages included."""
        return sum(stage.train_seconds for stage in self.stages)


def read_rows(run_dir: Path) -> list[ComparisonRow]:
    """The rows of a finished run.

    Raises:
        DataError: there is no such run, or a strategy has not been evaluated yet.
    """
    run = RunDir(run_dir)
    if not run.strategies.is_file():
        raise DataError(f"{run_dir}: no trained strategies there; run `sftkey run` with this run_dir first")
    strategies = json.loads(run.strategies.read_text(encoding="utf-8"))
    return [_row(run, name, entry) for name, entry in strategies.items()]


def write_comparison(rows: Sequence[ComparisonRow], json_file: Path) -> list[Path]:
    """Write the comparison as JSON, Markdown and plots beside each other; returns the files.

    Raises:
        DataError: the rows were scored with different alpha.
    """
    if len({row.alpha for row in rows}) > 1:
        alphas = ", ".join(f"{row.run_dir}: {row.alpha:g}" for row in rows)
        raise DataError(f"runs were scored with different alpha ({alphas}); run `sftkey evaluate` with one alpha")
    folder, stem = json_file.parent, json_file.stem
    write_json_atomically(json_file, {"rows": [asdict(row) for row in rows]})
    write_text_atomically(folder / f"{stem}.md", to_markdown(rows))
    labels = _labels(rows)
    curves = {
        label: key_nll_curve([StageDir(Path(row.run_dir) / stage.path) for stage in row.stages], row.key_segments)
        for label, row in zip(labels, rows, strict=True)
    }
    measures = {label: (row.accuracy, row.format) for label, row in zip(labels, rows, strict=True)}
    return [
        json_file,
        folder / f"{stem}.md",
        plot_key_nll(curves, folder / f"{stem}_key_nll.svg"),
        plot_score_by_alpha(measures, rows[0].alpha, folder / f"{stem}_alpha.svg"),
    ]


def _labels(rows: Sequence[ComparisonRow]) -> list[str]:
    """Strategy names, with the run in front when there are several runs."""
    if len({row.run_dir for row in rows}) == 1:
        return [row.strategy for row in rows]
    return [f"{Path(row.run_dir).name}/{row.strategy}" for row in rows]


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """The comparison as a Markdown table."""
    lines = [
        "| strategy | n | accuracy | format | score | unjudged | train s | loss tokens |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for label, row in zip(_labels(rows), rows, strict=True):
        loss_tokens = sum(stage.loss_tokens for stage in row.stages)
        lines.append(
            f"| {label} | {row.n} | {_with_interval(row.accuracy, row.accuracy_interval)} "
            f"| {_with_interval(row.format, row.format_interval)} | {_with_interval(row.score, row.score_interval)} "
            f"| {row.unjudged} | {row.train_seconds:.0f} | {loss_tokens:,} |"
        )
    alpha = rows[0].alpha
    lines += ["", f"score = {alpha:g} · accuracy + {1 - alpha:g} · format; brackets are 95 % intervals.", ""]
    return "\n".join(lines)


def _with_interval(value: float, interval: Interval) -> str:
    """``0.812 [0.75, 0.86]``."""
    return f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _row(run: RunDir, name: str, entry: dict[str, Any]) -> ComparisonRow:
    scores_file = run.path / (entry["evaluation"] or "-") / "scores.json"
    if not scores_file.is_file():
        raise DataError(f"{run.path}: strategy {name} has not been evaluated; run `sftkey evaluate` with its config")
    scores = json.loads(scores_file.read_text(encoding="utf-8"))
    shared = ("n", "accuracy", "format", "score", "alpha", "unjudged", "truncated", "violations")
    return ComparisonRow(
        run_dir=os.path.relpath(run.path),
        strategy=name,
        dataset=entry["dataset"],
        **{key: scores[key] for key in shared},
        accuracy_interval=tuple(scores["accuracy_interval"]),
        format_interval=tuple(scores["format_interval"]),
        score_interval=tuple(scores["score_interval"]),
        key_segments=tuple(entry["key_segments"]),
        stages=tuple(_stage_cost(run, stage) for stage in entry["stages"]),
        mlflow_run_id=entry["mlflow_run_id"],
    )


def _stage_cost(run: RunDir, stage: dict[str, Any]) -> StageCost:
    summary = json.loads(StageDir(run.path / stage["path"]).summary.read_text(encoding="utf-8"))
    return StageCost(
        name=stage["name"],
        path=stage["path"],
        shared_with=stage["shared_with"],
        **{key: summary[key] for key in ("steps", "train_seconds", "tokens", "loss_tokens", "world_size")},
    )
