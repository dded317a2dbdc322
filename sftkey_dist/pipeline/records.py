"""Writes `strategies.json`: the stages and the evaluation of each strategy of a run. The report reads it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sftkey_dist.pipeline.responding_model import is_of_present_model
from sftkey_dist.pipeline.run_plan import PlannedStrategy, RunPlan
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.run import STRATEGIES, StageEntry, StrategyEntry, read_strategies


def record_training(plan: RunPlan, planned: PlannedStrategy, mlflow_run_id: str | None) -> None:
    """Record the stages of a strategy, without an evaluation that has other settings or is of an earlier model."""
    entry = StrategyEntry(
        form=planned.strategy.form.value,
        dataset=" + ".join(source.data_set for source in plan.config.data.test_sources),
        key_segments=[segment.name for segment in plan.config.contract.key_segments],
        mlflow_run_id=mlflow_run_id,
        stages=[
            StageEntry(stage.stage.name, str(stage.directory.path.relative_to(plan.run.path)), stage.shared_with)
            for stage in planned.stages
        ],
        evaluation=None,
    )
    entries = _read_entries(plan.run)
    known = entries.get(planned.name)
    if known is not None and known.stages == entry.stages and _is_up_to_date(known, plan, planned):
        entry = replace(entry, evaluation=known.evaluation, swapped_reasoning=known.swapped_reasoning)
    STRATEGIES.write(plan.run.strategies, entries | {planned.name: entry})


def _is_up_to_date(known: StrategyEntry, plan: RunPlan, planned: PlannedStrategy) -> bool:
    """Whether the recorded evaluation, if any, is the one that the configuration asks for, of the present model."""
    if known.evaluation is None:
        return True
    folder = plan.run.path / known.evaluation
    return folder == planned.evaluation.folder and is_of_present_model(folder, planned.stages[-1].directory)


def record_evaluation(run: RunDir, strategy: str, folder: Path, swapped: Path | None) -> None:
    """Record the folder of a strategy's evaluation, and the file of its measurement with swapped reasoning, if any."""
    entries = _read_entries(run)
    entries[strategy] = replace(
        entries[strategy],
        evaluation=str(folder.relative_to(run.path)),
        swapped_reasoning=None if swapped is None else str(swapped.relative_to(run.path)),
    )
    STRATEGIES.write(run.strategies, entries)


def forget_all_but(run: RunDir, strategies: Sequence[str]) -> None:
    """Keep only the entries of these strategies, in this order, so that a comparison shows one configuration."""
    entries = _read_entries(run)
    STRATEGIES.write(run.strategies, {name: entries[name] for name in strategies if name in entries})


def _read_entries(run: RunDir) -> dict[str, StrategyEntry]:
    """All entries; empty before the first strategy is trained."""
    return read_strategies(run) if run.strategies.exists() else {}
