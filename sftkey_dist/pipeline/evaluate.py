"""Evaluate the last model of every strategy."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.cluster import connected
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.console import console, progress_line
from sftkey_dist.data.example import Example
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.run import EvaluationJob, EvaluationPool, generation_digest, is_scored, scoring_digest
from sftkey_dist.pipeline.prepare import Preparation
from sftkey_dist.pipeline.records import forget_all_but, record_evaluation, record_training
from sftkey_dist.pipeline.stages import PlannedStage, plan_stages
from sftkey_dist.pipeline.train import ending_run, start_strategy_run
from sftkey_dist.strategy import Strategy
from sftkey_dist.tracking import Tracker, make_tracker


@dataclass(frozen=True)
class _PlannedEvaluation:
    """One strategy's evaluation with its place on disk."""

    strategy: Strategy
    stages: list[PlannedStage]
    job: EvaluationJob
    folder: Path


def evaluation_is_finished(config: RunConfig, preparation: Preparation) -> bool:
    """Whether every strategy has the scores that the configuration asks for."""
    examples = _examples(config, preparation)
    return all(is_scored(planned.job, examples, planned.folder) for planned in _plan(config, preparation))


def evaluate(config: RunConfig, preparation: Preparation) -> None:
    """Generate and score the test set with the last model of every strategy; what is there is not made again.

    Raises:
        DataError: a strategy is not trained yet, or no answer can be judged.
    """
    plans, examples = _plan(config, preparation), _examples(config, preparation)
    for planned in plans:
        if not planned.stages[-1].is_finished:
            raise DataError(
                f"strategy {planned.strategy.name} is not trained yet; run `sftkey train` with the same configuration"
            )
    todo = [planned for planned in plans if not is_scored(planned.job, examples, planned.folder)]
    if todo:
        with (
            connected(config.cluster, config.most_workers),
            EvaluationPool(config.cluster, config.num_evaluation_workers) as pool,
        ):
            for planned in todo:
                with progress_line(f"{planned.strategy.name} evaluation", len(examples)) as line:
                    pool.evaluate(planned.job, examples, planned.folder, line.update)
    else:
        console.print("evaluation: finished earlier, not repeated")
    tracker = make_tracker(config.tracking, preparation.run.path, preparation.run.tracking)
    for planned in plans:
        _record(config, preparation, planned, scoring_digest(planned.job, examples), tracker)
    forget_all_but(preparation.run, [planned.strategy.name for planned in plans])


def _examples(config: RunConfig, preparation: Preparation) -> Sequence[Example]:
    return preparation.test[: config.evaluation.limit]


def _plan(config: RunConfig, preparation: Preparation) -> list[_PlannedEvaluation]:
    stages, examples = plan_stages(config, preparation), _examples(config, preparation)
    plans = []
    for strategy in preparation.strategies:
        plan = stages[strategy.name]
        job = EvaluationJob(
            model_dir=str(plan[-1].directory.model),
            form=strategy.form,
            contract=config.contract,
            prompt=config.prompt,
            settings=config.evaluation,
            trust_remote_code=config.model.trust_remote_code,
        )
        folder = preparation.run.evaluation(strategy.name, generation_digest(job, plan[-1].digest, examples))
        plans.append(_PlannedEvaluation(strategy, plan, job, folder))
    return plans


def _record(
    config: RunConfig, preparation: Preparation, planned: _PlannedEvaluation, scoring: str, tracker: Tracker
) -> None:
    """Write which stages were evaluated, and where: the folder may have been trained with other settings since."""
    parent = start_strategy_run(config, preparation, planned.strategy, planned.stages[-1], tracker)
    with ending_run(tracker, parent):
        record_training(preparation.run, planned.strategy.name, config, planned.stages, parent)
        record_evaluation(preparation.run, planned.strategy.name, planned.folder)
        _track(planned, scoring, tracker, parent)


def _track(planned: _PlannedEvaluation, scoring: str, tracker: Tracker, parent: str | None) -> None:
    key = f"evaluation/{planned.folder.name}/{scoring}"
    if tracker.has_finished(key):
        return
    run_id = tracker.start_run(key, "evaluation", parent, {"sftkey.strategy": planned.strategy.name})
    with ending_run(tracker, run_id):
        scores = json.loads((planned.folder / "scores.json").read_text(encoding="utf-8"))
        numbers = {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
        for run in (run_id, parent):
            tracker.log_summary(run, numbers)
        for name in ("records.jsonl", "scores.json"):
            tracker.log_artifact(run_id, planned.folder / name)
