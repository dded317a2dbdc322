"""Evaluate the last model of every strategy."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sftkey_dist.cluster import connected
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.console import console, progress_line
from sftkey_dist.data.example import Example
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.run import EvaluationJob, EvaluationPool, evaluation_digest
from sftkey_dist.evaluation.score import Scores
from sftkey_dist.pipeline.prepare import Preparation
from sftkey_dist.pipeline.records import record_evaluation
from sftkey_dist.pipeline.stages import PlannedStage, plan_stages
from sftkey_dist.pipeline.train import start_strategy_run
from sftkey_dist.strategy import Strategy
from sftkey_dist.tracking import Tracker, make_tracker


def evaluation_is_finished(config: RunConfig, preparation: Preparation) -> bool:
    """Whether every strategy has its scores."""
    return all((folder / "scores.json").is_file() for folder in _folders(config, preparation).values())


def evaluate(config: RunConfig, preparation: Preparation) -> None:
    """Generate and score the test set with the last model of every strategy; unfinished ones go on.

    Raises:
        DataError: a strategy is not trained yet.
    """
    plans = plan_stages(config, preparation)
    for name, plan in plans.items():
        if not plan[-1].is_finished:
            raise DataError(f"strategy {name} is not trained yet; run `sftkey train` with the same configuration")
    tracker = make_tracker(config.tracking, preparation.run.path, preparation.run.tracking)
    examples = _examples(config, preparation)
    folders = _folders(config, preparation)
    if evaluation_is_finished(config, preparation):
        console.print("evaluation: finished earlier, not repeated")
    else:
        with connected(config.cluster), EvaluationPool(config.cluster, config.evaluation) as pool:
            for strategy in preparation.strategies:
                job = _job(config, strategy, plans[strategy.name][-1])
                with progress_line(f"{strategy.name} evaluation", len(examples)) as line:
                    scores = pool.evaluate(job, examples, folders[strategy.name], line.update)
                _track(config, preparation, strategy, folders[strategy.name], scores, tracker)
    for strategy in preparation.strategies:
        record_evaluation(preparation.run, strategy.name, folders[strategy.name])


def _examples(config: RunConfig, preparation: Preparation) -> Sequence[Example]:
    return preparation.test.examples[: config.evaluation.limit]


def _folders(config: RunConfig, preparation: Preparation) -> dict[str, Path]:
    plans, examples = plan_stages(config, preparation), _examples(config, preparation)
    folders = {}
    for strategy in preparation.strategies:
        last = plans[strategy.name][-1]
        digest = evaluation_digest(_job(config, strategy, last), last.digest, examples)
        folders[strategy.name] = preparation.run.evaluation(strategy.name, digest)
    return folders


def _job(config: RunConfig, strategy: Strategy, last: PlannedStage) -> EvaluationJob:
    return EvaluationJob(
        model_dir=str(last.directory.model),
        form=strategy.form,
        contract=config.contract,
        prompt=config.prompt,
        settings=config.evaluation,
        trust_remote_code=config.model.trust_remote_code,
    )


def _track(
    config: RunConfig,
    preparation: Preparation,
    strategy: Strategy,
    folder: Path,
    scores: Scores,
    tracker: Tracker,
) -> None:
    parent = start_strategy_run(config, preparation, strategy, tracker)
    run_id = tracker.start_run(f"evaluation/{folder.name}", "evaluation", parent, {"sftkey.strategy": strategy.name})
    numbers = {name: float(value) for name, value in asdict(scores).items() if isinstance(value, int | float)}
    for run in (run_id, parent):
        tracker.log_summary(run, numbers)
    for name in ("records.jsonl", "scores.json"):
        tracker.log_artifact(run_id, folder / name)
    tracker.end_run(run_id)
    tracker.end_run(parent)
