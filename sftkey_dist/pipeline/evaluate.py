"""Evaluate the last model of every strategy."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from sftkey_dist.cluster import connected, wait_for_room
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console, progress_line
from sftkey_dist.data.example import Example
from sftkey_dist.errors import DataError, IncompleteEvaluationError
from sftkey_dist.evaluation.generation.fan_out import (
    EvaluationJob,
    EvaluationPool,
    generation_digest,
    has_generations,
    num_actors,
)
from sftkey_dist.evaluation.judge.jury import make_jury
from sftkey_dist.evaluation.judging import is_scored, judge_and_score
from sftkey_dist.pipeline.assessments import assess_tests
from sftkey_dist.pipeline.finished import verify_stages
from sftkey_dist.pipeline.prepare import Preparation, write_configuration
from sftkey_dist.pipeline.records import forget_all_but, record_evaluation, record_training
from sftkey_dist.pipeline.stages import PlannedStage, plan_stages
from sftkey_dist.pipeline.track import ending_run, start_strategy, track_evaluation
from sftkey_dist.strategy import Strategy
from sftkey_dist.tracking import Tracker


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


def evaluate(config: RunConfig, preparation: Preparation, tracker: Tracker) -> list[str]:
    """Generate and score the test set with the last model of every strategy; what is there is not made again.

    Returns:
        What could not be judged yet, a line a strategy; their scores say so too.

    Raises:
        DataError: a strategy is not trained yet, its model is not what was written, or no answer can be judged.
        IncompleteEvaluationError: a strategy lacks responses; the others are evaluated.
    """
    plans, examples = _plan(config, preparation), _examples(config, preparation)
    for planned in plans:
        if not planned.stages[-1].is_finished:
            raise DataError(
                f"strategy {planned.strategy.name} is not trained yet; run `sftkey train` with the same configuration"
            )
    verify_stages(preparation, {planned.strategy.name: planned.stages for planned in plans})
    todo = [planned for planned in plans if not is_scored(planned.job, examples, planned.folder)]
    write_configuration(config, preparation)
    if not todo:
        console.print("evaluation: finished earlier, not repeated")
    ungenerated = [planned for planned in todo if not has_generations(examples, planned.folder)]
    still_open = _generate(config, ungenerated, examples) if ungenerated else []
    generated = [planned for planned in todo if has_generations(examples, planned.folder)]
    still_open += _judge(config, preparation, generated, examples) if generated else []
    for planned in plans:
        _record(config, preparation, planned, examples, tracker)
    forget_all_but(preparation.run, [planned.strategy.name for planned in plans])
    if len(generated) < len(todo):
        raise IncompleteEvaluationError("\n".join(still_open))
    return still_open


def _generate(config: RunConfig, plans: Sequence[_PlannedEvaluation], examples: Sequence[Example]) -> list[str]:
    """Generate for each strategy; what a server left open in one does not keep the others waiting."""
    still_open = []
    with (
        connected(config.cluster, config.most_workers),
        EvaluationPool(config.cluster, config.evaluation, num_actors(config.evaluation, _room(config))) as pool,
    ):
        for planned in plans:
            with progress_line(f"{planned.strategy.name} evaluation", len(examples)) as line:
                try:
                    pool.generate(planned.job, examples, planned.folder, line.update)
                except IncompleteEvaluationError as error:
                    still_open.append(f"{planned.strategy.name}: {error}")
    return still_open


def _room(config: RunConfig) -> int:
    """Actors that the connected cluster has room for; nodes may have gone while the stages were trained."""
    return wait_for_room(config.cluster, config.num_evaluation_workers, config.evaluation_gpus)


def _judge(
    config: RunConfig, preparation: Preparation, plans: Sequence[_PlannedEvaluation], examples: Sequence[Example]
) -> list[str]:
    settings = config.evaluation.judge
    if settings is None:
        for planned in plans:
            judge_and_score(planned.job, examples, planned.folder, None, lambda done: None)
        return []
    still_open = []
    with (
        connected(config.cluster, config.most_workers),
        make_jury(settings, preparation.run.path, config.cluster, _room(config)) as jury,
    ):
        for planned in plans:
            num_answers = len(examples) * config.evaluation.sampling.num_samples * len(config.contract.key_segments)
            with progress_line(f"{planned.strategy.name} judging", num_answers) as line:
                try:
                    judge_and_score(planned.job, examples, planned.folder, jury, line.update)
                except IncompleteEvaluationError as error:
                    still_open.append(str(error))
    return still_open


def _examples(config: RunConfig, preparation: Preparation) -> Sequence[Example]:
    """Of each test set the first ones, where there is a limit."""
    limit = config.evaluation.limit
    if limit is None:
        return preparation.test
    by_data_set: dict[str, list[Example]] = {}
    for example in preparation.test:
        by_data_set.setdefault(example.data_set, []).append(example)
    return [example for examples in by_data_set.values() for example in examples[:limit]]


def _plan(config: RunConfig, preparation: Preparation) -> list[_PlannedEvaluation]:
    stages, examples = plan_stages(config, preparation), _examples(config, preparation)
    plans = []
    for strategy in preparation.strategies:
        plan = stages[strategy.name]
        assessment = assess_tests(config, strategy)
        job = EvaluationJob(
            **{field.name: getattr(assessment, field.name) for field in fields(assessment)}
            | {"settings": _for_strategy(config.evaluation, strategy)},
            model_dir=str(plan[-1].directory.model),
            strategy=strategy.name,
        )
        folder = preparation.run.evaluation(strategy.name, generation_digest(job, plan[-1].digest, examples))
        plans.append(_PlannedEvaluation(strategy, plan, job, folder))
    return plans


def _for_strategy(settings: EvaluationConfig, strategy: Strategy) -> EvaluationConfig:
    """One server may have the models of all strategies, each under its name."""
    if settings.endpoint is None:
        return settings
    model = settings.endpoint.model.replace("{strategy}", strategy.name)
    return settings.model_copy(update={"endpoint": settings.endpoint.model_copy(update={"model": model})})


def _record(
    config: RunConfig,
    preparation: Preparation,
    planned: _PlannedEvaluation,
    examples: Sequence[Example],
    tracker: Tracker,
) -> None:
    """Write which stages were evaluated, and where: the folder may have been trained with other settings since."""
    strategy, run = planned.strategy, preparation.run
    parent = start_strategy(config, run, strategy.name, strategy.form.value, planned.stages[-1].digest, tracker)
    with ending_run(tracker, parent):
        record_training(run, strategy, config, planned.stages, parent)
        if not has_generations(examples, planned.folder):
            return
        record_evaluation(run, strategy.name, planned.folder)
        if is_scored(planned.job, examples, planned.folder):
            track_evaluation(config, run, strategy.name, planned.folder, parent, tracker)
