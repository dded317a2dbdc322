"""The plan of a run, made once: every stage and evaluation with its job, its digest and its folder."""

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
        """Name of the strategy."""
        return self.strategy.name


@dataclass(frozen=True)
class RunPlan:
    """The work of a run.

    Attributes:
        config: configuration of the run.
        preparation: its data and its base model.
        strategies: the planned strategies, in order.
        test: the test examples that are evaluated.
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
        """Every stage once, as part of the strategy that trains it."""
        return [stage for planned in self.strategies for stage in planned.stages if stage.shared_with is None]

    @property
    def is_trained(self) -> bool:
        """Whether all stages are trained."""
        return all(stage.is_finished for stage in self.stages)


def plan_run(config: RunConfig, preparation: Preparation) -> RunPlan:
    """Plan everything that a run does after its preparation.

    Raises:
        ConfigError: a stage has no example with a token to train.
    """
    stages, test = plan_stages(config, preparation), limited(preparation.test, config.evaluation.limit)
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
    """The settings with the strategy's name filled in, since one server may have the models of all strategies."""
    if settings.endpoint is None:
        return settings
    model = settings.endpoint.model.replace("{strategy}", strategy.name)
    return settings.model_copy(update={"endpoint": settings.endpoint.model_copy(update={"model": model})})


def limited(test: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """The first ``limit`` examples of each test set, or all without a limit."""
    if limit is None:
        return test
    by_data_set: dict[str, list[Example]] = {}
    for example in test:
        by_data_set.setdefault(example.data_set, []).append(example)
    return [example for examples in by_data_set.values() for example in examples[:limit]]
