"""From strategies to stage runs: what has to be trained, where it lies, and who shares it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import digest_json
from sftkey_dist.pipeline.assessments import assess_held_out
from sftkey_dist.pipeline.prepare import Preparation
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler import CostModel, StepPlanner, count_steps, count_trained
from sftkey_dist.strategy import Stage, Strategy
from sftkey_dist.training.collate import PROMPT_ID
from sftkey_dist.training.job import GuardJob, StageJob, StageSettings
from sftkey_dist.training.masters import masters_are_there
from sftkey_dist.training.planner import stage_planner


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a strategy with its place on disk.

    Attributes:
        stage: weights and optimisation.
        settings: what workers are told beside its places.
        digest: of everything its result depends on.
        inputs: what the digest stands for.
        num_steps: optimizer steps.
        model_dir: the model it starts from.
        masters_dir: float32 weights that it starts from; None for the model folder's own.
        directory: where it writes.
        shared_with: the strategy that trains it, when that is another one.
        rounds_its_masters: whether its model folder holds less than its float32 master weights.
        continued_by: folders of the stages that start from its result.
    """

    stage: Stage
    settings: StageSettings
    digest: str
    inputs: dict[str, Any]
    num_steps: int
    model_dir: Path
    masters_dir: Path | None
    directory: StageDir
    shared_with: str | None
    rounds_its_masters: bool
    continued_by: tuple[StageDir, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Whether its summary, written last, is there."""
        return self.directory.summary.is_file()

    @property
    def needs_masters(self) -> bool:
        """Whether a stage that is not trained yet will start from its master weights."""
        return self.rounds_its_masters and not all(child.summary.is_file() for child in self.continued_by)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do: it is trained, and what stages that continue from it need is there."""
        return self.is_trained and not (self.needs_masters and not masters_are_there(self.directory.masters))


@dataclass(frozen=True)
class _Owner:
    """The strategy that trains a stage, and where; another strategy may have the stage under another name."""

    strategy: str
    directory: StageDir


def plan_stages(config: RunConfig, preparation: Preparation) -> dict[str, list[PlannedStage]]:
    """The stages of every strategy, in order; a stage that two strategies need has one digest and one place."""
    owners: dict[str, _Owner] = {}
    plans = {}
    for strategy in preparation.strategies:
        plans[strategy.name] = _plan_strategy(config, preparation, strategy, owners)
    children = _continuations(plans.values())
    return {
        name: [replace(planned, continued_by=tuple(children[planned.digest].values())) for planned in plan]
        for name, plan in plans.items()
    }


def stages_to_train(config: RunConfig, preparation: Preparation) -> list[tuple[Strategy, PlannedStage]]:
    """Every stage once, with the strategy that trains it."""
    plans = plan_stages(config, preparation)
    return [
        (strategy, planned)
        for strategy in preparation.strategies
        for planned in plans[strategy.name]
        if planned.shared_with is None
    ]


def planner_of(
    config: RunConfig,
    preparation: Preparation,
    form: Form,
    stage: Stage,
    cost: CostModel,
    data_ranks: int,
    micro_batch_tokens: int,
) -> StepPlanner:
    """The planner that a stage's ranks would make, for any number of them and any token budget."""
    return stage_planner(
        preparation.stores[form].segment_counts,
        stage.weights,
        stage.optimization,
        seed=config.seed,
        micro_batch_tokens=micro_batch_tokens,
        data_ranks=data_ranks,
        cost=cost,
        held_out=held_out_of(config, preparation, form),
    )


def stage_job(config: RunConfig, preparation: Preparation, strategy: Strategy, planned: PlannedStage) -> StageJob:
    """What the workers are told."""
    return StageJob(
        **dict(planned.settings),
        model_dir=planned.model_dir.absolute(),
        masters_dir=planned.masters_dir.absolute() if planned.masters_dir else None,
        hands_on_masters=planned.rounds_its_masters and (bool(planned.continued_by) or config.training.keep_masters),
        store_dir=preparation.stores[strategy.form].path.absolute(),
        other_stores=tuple(
            store.path.absolute() for form, store in preparation.stores.items() if form != strategy.form
        ),
        stage_dir=planned.directory.path.absolute(),
        checkpoints=checkpoints_of(config, preparation, planned),
    )


def _settings(config: RunConfig, preparation: Preparation, strategy: Strategy, stage: Stage) -> StageSettings:
    return StageSettings(
        weights=stage.weights,
        stop_gradient_prefix=stage.stop_gradient_prefix,
        seed=config.seed,
        optimization=stage.optimization,
        training=config.training,
        validation=config.validation,
        guard=guard_of(config, strategy, stage),
        attention=config.model.attention,
        trust_remote_code=config.model.trust_remote_code,
        precision=StageSettings.resolve_precision(config.training, config.cluster.gpus_per_worker),
        end_of_turn_id=preparation.end_of_turn_id,
    )


def checkpoints_of(config: RunConfig, preparation: Preparation, planned: PlannedStage) -> str:
    """Folder or URI of a stage's checkpoints."""
    base, stage = config.training.checkpoint_storage, planned.directory
    if base is None:
        return str(stage.checkpoints.absolute())
    place, question_mark, options = base.partition("?")
    run = quote(preparation.run.identity())
    return f"{place.rstrip('/')}/{run}/{stage.path.name}{question_mark}{options}"


def held_out_of(config: RunConfig, preparation: Preparation, form: Form) -> np.ndarray:
    """Indices of the examples that no stage trains on: of the same prompts in every form."""
    others = [store.hashes for other, store in preparation.stores.items() if other != form]
    hashes = preparation.stores[form].hashes
    return held_out_indices(hashes, config.validation.num_examples, config.seed, others)


def guard_of(config: RunConfig, strategy: Strategy, stage: Stage) -> GuardJob | None:
    """The guard of a stage, if it has one.

    A stage that trains the whole response cannot unlearn how to respond, and a first stage has nothing to lose.
    """
    trains_everything = all(weight > 0 for weight in stage.weights[PROMPT_ID + 1 :])
    if config.validation.guard is None or trains_everything or stage is strategy.stages[0]:
        return None
    return GuardJob(
        settings=config.validation.guard,
        assessment=assess_held_out(config, strategy),
    )


def num_trained(config: RunConfig, preparation: Preparation, strategy: Strategy, stage: Stage) -> int:
    """Examples that a stage learns from: a row without an optional key segment has nothing for a key stage.

    Raises:
        ConfigError: there is none.
    """
    store = preparation.stores[strategy.form]
    held_out = held_out_of(config, preparation, strategy.form)
    found = count_trained(store.segment_counts, stage.weights, held_out)
    if not found:
        raise ConfigError(
            f"strategies.{strategy.name}.{stage.name}: no training example has a token that this stage trains; see the "
            f"contract's key segments, the stage's weights, and validation.num_examples"
        )
    return found


def _num_steps(config: RunConfig, preparation: Preparation, strategy: Strategy, stage: Stage) -> int:
    """Optimizer steps of a stage.

    Raises:
        ConfigError: it has no example to learn from.
    """
    optimization = stage.optimization
    return count_steps(
        num_trained(config, preparation, strategy, stage),
        optimization.global_batch_size,
        optimization.num_epochs,
        optimization.max_steps,
    )


def _plan_strategy(
    config: RunConfig, preparation: Preparation, strategy: Strategy, owners: dict[str, _Owner]
) -> list[PlannedStage]:
    planned: list[PlannedStage] = []
    model_dir, parent_digest, label = preparation.model_dir, preparation.model_digest, strategy.form.value
    masters_dir, rounds_masters = None, _rounds_masters(config)
    for stage in strategy.stages:
        settings = _settings(config, preparation, strategy, stage)
        num_steps = _num_steps(config, preparation, strategy, stage)
        inputs = {
            "model": parent_digest,
            "store": preparation.stores[strategy.form].digest,
            "starts_from_masters": masters_dir is not None,
            **settings.inputs(num_steps),
            **_held_out_inputs(config, preparation, strategy.form),
        }
        digest = digest_json(inputs)
        label = f"{label}-{stage.name}"
        owner = owners.setdefault(digest, _Owner(strategy.name, preparation.run.stage(label, digest)))
        directory, shared_with = owner.directory, None if owner.strategy == strategy.name else owner.strategy
        planned.append(
            PlannedStage(
                stage,
                settings,
                digest,
                inputs,
                num_steps,
                model_dir,
                masters_dir,
                directory,
                shared_with,
                rounds_masters,
            )
        )
        model_dir, parent_digest = directory.model, digest
        masters_dir = directory.masters if rounds_masters else None
    return planned


def _continuations(plans: Iterable[list[PlannedStage]]) -> defaultdict[str, dict[str, StageDir]]:
    """By digest of a stage, the folders of the stages that start from its result, each once."""
    children: defaultdict[str, dict[str, StageDir]] = defaultdict(dict)
    for plan in plans:
        for parent, child in pairwise(plan):
            children[parent.digest][child.digest] = child.directory
    return children


def _rounds_masters(config: RunConfig) -> bool:
    """Whether model folders hold less than what their stages trained."""
    computes_in = StageJob.resolve_precision(config.training, config.cluster.gpus_per_worker)
    return computes_in != "float32" and config.training.export_precision != "float32"


def _held_out_inputs(config: RunConfig, preparation: Preparation, form: Form) -> dict[str, Any]:
    """The held-out prompts where other forms decide about them; otherwise the store and the settings say them."""
    hashes, chosen = preparation.stores[form].hashes, held_out_of(config, preparation, form)
    if np.array_equal(chosen, held_out_indices(hashes, config.validation.num_examples, config.seed)):
        return {}
    return {"held_out_prompts": digest_json(np.unique(hashes[chosen, 0]).tolist())}
