"""The plan of a run, made once: every stage and every evaluation with its job, its digest and its place on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.job import EvaluationJob, generation_digest
from sftkey_dist.pipeline.evaluation_settings import settings_for_tests
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.pipeline.stages import PlannedStage, plan_stages
from sftkey_dist.run_dir import RunDir
from sftkey_dist.strategy import Strategy


@dataclass(frozen=True)
class PlannedEvaluation:
    """The evaluation of a strategy's last model."""

    job: EvaluationJob
    folder: Path


@dataclass(frozen=True)
class PlannedStrategy:
    """A strategy with its stages, in order, and its evaluation."""

    strategy: Strategy
    stages: tuple[PlannedStage, ...]
    evaluation: PlannedEvaluation

    @property
    def name(self) -> str:
        """Of the strategy."""
        return self.strategy.name


@dataclass(frozen=True)
class RunPlan:
    """What a run has to do.

    Attributes:
        config: of the run.
        preparation: its data and its base model.
        strategies: in order.
        test: test examples that are evaluated.
        verified: digests of the finished stages that this command has verified or trained.
    """

    config: RunConfig
    preparation: Preparation
    strategies: tuple[PlannedStrategy, ...]
    test: Sequence[Example]
    verified: set[str] = field(default_factory=set)

    @property
    def run(self) -> RunDir:
        """The run directory."""
        return self.preparation.run

    @property
    def stages(self) -> list[PlannedStage]:
        """Every stage once, from the strategy that trains it."""
        return [stage for planned in self.strategies for stage in planned.stages if stage.shared_with is None]

    @property
    def is_trained(self) -> bool:
        """Whether no stage is left to train."""
        return all(stage.is_finished for stage in self.stages)


def plan_run(config: RunConfig, preparation: Preparation) -> RunPlan:
    """Plan everything that a run does after it is prepared.

    Raises:
        ConfigError: a stage has no example to learn from.
    """
    stages, test = plan_stages(config, preparation), _limited(preparation.test, config.evaluation.limit)
    strategies = tuple(
        PlannedStrategy(
            strategy,
            stages[strategy.name],
            _plan_evaluation(config, preparation.run, strategy, stages[strategy.name][-1], test),
        )
        for strategy in preparation.strategies
    )
    return RunPlan(config, preparation, strategies, test)


def _plan_evaluation(
    config: RunConfig, run: RunDir, strategy: Strategy, last: PlannedStage, test: Sequence[Example]
) -> PlannedEvaluation:
    settings = settings_for_tests(config, strategy)
    job = EvaluationJob(
        **{field.name: getattr(settings, field.name) for field in fields(settings)}
        | {"settings": _for_strategy(config.evaluation, strategy)},
        model_dir=str(last.directory.model),
        strategy=strategy.name,
    )
    return PlannedEvaluation(job, run.evaluation(strategy.name, generation_digest(job, last.digest, test)))


def _for_strategy(settings: EvaluationConfig, strategy: Strategy) -> EvaluationConfig:
    """One server may have the models of all strategies, each under its name."""
    if settings.endpoint is None:
        return settings
    model = settings.endpoint.model.replace("{strategy}", strategy.name)
    return settings.model_copy(update={"endpoint": settings.endpoint.model_copy(update={"model": model})})


def _limited(test: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """Of each test set the first examples, where there is a limit."""
    if limit is None:
        return test
    by_data_set: dict[str, list[Example]] = {}
    for example in test:
        by_data_set.setdefault(example.data_set, []).append(example)
    return [example for examples in by_data_set.values() for example in examples[:limit]]
