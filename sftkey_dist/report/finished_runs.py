"""Reads the comparison of finished runs from their folders."""

import os
from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.forgetting import Forgetting, read_forgetting
from sftkey_dist.report.run_names import distinct_runs
from sftkey_dist.report.stage_cost import read_stage_cost
from sftkey_dist.run_dir import EvaluationDir, RunDir
from sftkey_dist.run_dir.artifacts.evaluation import SCORES
from sftkey_dist.run_dir.artifacts.run import DATA_REPORT, PreparedData, StrategyEntry, read_strategies, train_set_name
from sftkey_dist.run_dir.artifacts.swapped import read_swapped


def read_comparison(run_dirs: Sequence[Path]) -> Comparison:
    """The strategies of finished runs.

    Raises:
        DataError: a run does not exist, a strategy has not been evaluated yet, or runs cannot be compared.
    """
    return Comparison(tuple(row for run_dir in distinct_runs(run_dirs) for row in _read_rows(run_dir)))


def _read_rows(run_dir: Path) -> list[ComparisonRow]:
    run = RunDir(run_dir)
    entries = read_strategies(run)
    report = DATA_REPORT.read(run.data_report) if run.data_report.is_file() else PreparedData()
    return [_read_row(run, name, entries[name], found, report) for name, found in read_forgetting(run, entries).items()]


def _read_row(
    run: RunDir, name: str, entry: StrategyEntry, forgetting: Forgetting, report: PreparedData
) -> ComparisonRow:
    evaluation = entry.evaluation or "-"
    scores_file = EvaluationDir(run.path / evaluation).scores
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
        stages=tuple(read_stage_cost(run, stage) for stage in entry.stages),
        mlflow_run_id=entry.mlflow_run_id,
        forgetting=forgetting,
        guided=bool(found.guided),
        swapped=read_swapped(run.path, entry.swapped_reasoning),
        train_set=next((of for of in report.sets if of.name == train_set_name(entry.form)), None),
    )
