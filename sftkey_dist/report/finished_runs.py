"""Reads the comparison of finished runs from their folders."""

import os
from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.report.comparison import Comparison, ComparisonRow, StageCost
from sftkey_dist.report.forgetting import Forgetting, read_forgetting
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.evaluation import SCORES
from sftkey_dist.run_dir.artifacts.run import StageEntry, StrategyEntry, read_strategies
from sftkey_dist.run_dir.artifacts.swapped import read_swapped
from sftkey_dist.run_dir.artifacts.training import read_summary


def read_comparison(run_dirs: Sequence[Path]) -> Comparison:
    """The strategies of finished runs.

    Raises:
        DataError: a run does not exist, a strategy has not been evaluated yet, or runs cannot be compared.
    """
    distinct = dict.fromkeys(run_dir.absolute() for run_dir in run_dirs)
    return Comparison(tuple(row for run_dir in distinct for row in _read_rows(run_dir)))


def _read_rows(run_dir: Path) -> list[ComparisonRow]:
    run = RunDir(run_dir)
    if not run.strategies.is_file():
        raise DataError(f"{run_dir}: no trained strategies there; run `sftkey run` with this run_dir first")
    entries = read_strategies(run)
    return [_read_row(run, name, entries[name], found) for name, found in read_forgetting(run, entries).items()]


def _read_row(run: RunDir, name: str, entry: StrategyEntry, forgetting: Forgetting) -> ComparisonRow:
    evaluation = entry.evaluation or "-"
    scores_file = run.path / evaluation / "scores.json"
    if not scores_file.is_file():
        raise DataError(f"{run.path}: strategy {name} has not been evaluated; run `sftkey evaluate` with its config")
    found = SCORES.read(scores_file)
    return ComparisonRow(
        run_dir=os.path.relpath(run.path),
        strategy=name,
        dataset=entry.dataset,
        scores=found.of_all,
        by_data_set=found.data_sets,
        macro_average=found.macro_average,
        agreement=found.agreement,
        to_review=found.to_review,
        is_complete=found.is_complete,
        evaluation=evaluation,
        key_segments=tuple(entry.key_segments),
        stages=tuple(_stage_cost(run, stage) for stage in entry.stages),
        mlflow_run_id=entry.mlflow_run_id,
        forgetting=forgetting,
        guided=bool(found.guided),
        swapped=read_swapped(run.path, entry.swapped_reasoning),
    )


def _stage_cost(run: RunDir, stage: StageEntry) -> StageCost:
    summary = read_summary(StageDir(run.path / stage.path))
    rounding = summary.rounding
    return StageCost(
        name=stage.name,
        path=stage.path,
        shared_with=stage.shared_with,
        steps=summary.steps,
        train_seconds=summary.train_seconds,
        tokens=summary.tokens,
        loss_tokens=summary.loss_tokens,
        world_size=summary.world_size,
        changed_share=rounding.num_changed / rounding.num_weights if rounding and rounding.num_weights else None,
        surviving_share=rounding.surviving_share if rounding else None,
        own_responses=summary.own_responses,
    )
