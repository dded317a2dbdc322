"""Plans the stages of all strategies: what has to be trained, in which folder, and which strategies share it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import numpy as np

from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import PROMPT_ID, Form
from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import ConfigError
from sftkey_dist.pipeline.evaluation_settings import settings_for_held_out
from sftkey_dist.pipeline.own_data.inputs import own_data_inputs
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.training import SampleYield
from sftkey_dist.sampler import CostModel, StepPlanner, count_steps, count_trained
from sftkey_dist.strategy import Stage, Strategy
from sftkey_dist.training.job import GuardJob, StageJob, StageSettings

if TYPE_CHECKING:  # loads datasets
    from sftkey_dist.data.store import EncodedStore


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training data of one form of the response.

    Attributes:
        form: the form.
        store: encoded examples.
        other_stores: the stores of the other forms of the same data.
        held_out: indices of the examples that no stage trains on, the same prompts in every form, int64 [H].
        inputs: inputs of a stage that tell which examples are held out, as far as its settings do not.
    """

    form: Form
    store: "EncodedStore"
    other_stores: "Sequence[EncodedStore]"
    held_out: np.ndarray
    inputs: Mapping[str, object]

    @classmethod
    def of(cls, config: RunConfig, preparation: Preparation, form: Form) -> Self:
        """Choose the held-out examples of a form's store."""
        store, others = preparation.stores[form], [s for other, s in preparation.stores.items() if other != form]
        number, seed = config.validation.num_examples, config.seed
        held_out = held_out_indices(store.hashes, number, seed, [other.hashes for other in others])
        if len(held_out) and len(held_out) == len(store.hashes):
            raise ConfigError(
                f"validation.num_examples={number}: all {len(held_out)} training examples would be held out, and none "
                f"would be trained on; lower it"
            )
        inputs = {}
        if not np.array_equal(held_out, held_out_indices(store.hashes, number, seed)):  # other forms decided too
            inputs["held_out_prompts"] = digest_json(np.unique(store.hashes[held_out, 0]).tolist())
        return cls(form, store, others, held_out, inputs)


@dataclass(frozen=True, eq=False)
class PlannedStage:
    """A stage of a strategy, with everything that is known before it is trained.

    Attributes:
        strategy: name of its strategy.
        place: its number within the strategy, from 1, and the strategy's number of stages.
        job: the job of its workers.
        data: its training data.
        digest: digest of everything that its result depends on.
        inputs: what the digest is computed from.
        num_steps: number of optimizer steps.
        shared_with: the strategy that trains it, if that is another one.
        continued_by: folders of the stages that start from its result.
        own_responses: yield of the responses that its data consist of, once they are sampled; None for references.
    """

    strategy: str
    place: tuple[int, int]
    job: StageJob
    data: TrainingData
    digest: str
    inputs: dict[str, Any]
    num_steps: int
    shared_with: str | None
    continued_by: tuple[StageDir, ...] = ()
    own_responses: SampleYield | None = None

    @property
    def stage(self) -> Stage:
        """Its loss weights and optimisation."""
        return self.job.stage

    @property
    def name(self) -> str:
        """Name of the strategy and of the stage."""
        return f"{self.strategy} {self.stage.name}"

    @property
    def title(self) -> str:
        """Its title in messages: strategy, place and name."""
        return f"{self.strategy} stage {self.place[0]}/{self.place[1]} ({self.stage.name})"

    @property
    def directory(self) -> StageDir:
        """The folder that it writes to."""
        return StageDir(self.job.stage_dir)

    @property
    def is_trained(self) -> bool:
        """Whether its summary, which is written last, exists."""
        return self.directory.summary.is_file()

    @property
    def needs_masters(self) -> bool:
        """Whether a stage that is not trained yet starts from its master weights."""
        return self.job.hands_on_masters and not all(child.summary.is_file() for child in self.continued_by)

    @property
    def is_finished(self) -> bool:
        """Whether it is trained, and the master weights that other stages still need exist."""
        return self.is_trained and not (self.needs_masters and not self.directory.has_masters)

    def planner(self, cost: CostModel, data_ranks: int, micro_batch_tokens: int) -> StepPlanner:
        """The step planner of its ranks, for any number of ranks and any token budget."""
        return self.stage.planner(
            self.data.store.segment_counts,
            seed=self.job.seed,
            micro_batch_tokens=micro_batch_tokens,
            data_ranks=data_ranks,
            cost=cost,
            held_out=self.data.held_out,
            example_weights=self.data.store.loss_weights,
        )


@dataclass(frozen=True)
class _Owner:
    """The strategy that trains a stage, and its folder. Another strategy may contain the stage under another name."""

    strategy: str
    directory: StageDir


@dataclass(frozen=True)
class _Start:
    """What a stage starts from: the base model, or the result of the stage before it."""

    model_dir: Path
    digest: str
    masters_dir: Path | None = None


def plan_stages(config: RunConfig, preparation: Preparation) -> dict[str, tuple[PlannedStage, ...]]:
    """The stages of every strategy, in order. A stage that two strategies share has one digest and one folder.

    Raises:
        ConfigError: a stage has no example with a token to train.
    """
    data = {form: TrainingData.of(config, preparation, form) for form in preparation.stores}
    owners: dict[str, _Owner] = {}
    plans = {
        strategy.name: _plan_strategy(config, preparation, strategy, data[strategy.form], owners)
        for strategy in preparation.strategies
    }
    children = _continuations(plans.values())
    return {
        name: tuple(_continued(config, planned, tuple(children[planned.digest].values())) for planned in plan)
        for name, plan in plans.items()
    }


def _plan_strategy(
    config: RunConfig, preparation: Preparation, strategy: Strategy, data: TrainingData, owners: dict[str, _Owner]
) -> list[PlannedStage]:
    planned: list[PlannedStage] = []
    start, label = _Start(preparation.model_dir, preparation.model_digest), strategy.form.value
    for number, stage in enumerate(strategy.stages, start=1):
        settings = _settings(config, preparation, strategy, stage)
        num_steps = _num_steps(strategy, stage, data)
        inputs = {
            "model": start.digest,
            "store": data.store.digest,
            "starts_from_masters": start.masters_dir is not None,
            **settings.inputs(num_steps),
            **data.inputs,
            **own_data_inputs(config, strategy, stage),
        }
        digest, label = digest_json(inputs), f"{label}-{stage.name}"
        owner = owners.setdefault(digest, _Owner(strategy.name, preparation.run.stage(label, digest)))
        planned.append(
            PlannedStage(
                strategy=strategy.name,
                place=(number, len(strategy.stages)),
                job=_job(config, preparation.run, settings, start, data, owner.directory),
                data=data,
                digest=digest,
                inputs=inputs,
                num_steps=num_steps,
                shared_with=None if owner.strategy == strategy.name else owner.strategy,
            )
        )
        masters_dir = owner.directory.masters if _rounds_masters(settings) else None
        start = _Start(owner.directory.model, digest, masters_dir)
    return planned


def _settings(config: RunConfig, preparation: Preparation, strategy: Strategy, stage: Stage) -> StageSettings:
    return StageSettings(
        stage=stage,
        seed=config.seed,
        training=config.training,
        validation=config.validation,
        guard=_guard(config, strategy, stage),
        attention=config.model.attention,
        trust_remote_code=config.model.trust_remote_code,
        precision=StageSettings.resolve_precision(config.training, config.cluster.gpus_per_worker),
        end_of_turn_id=preparation.end_of_turn_id,
    )


def _guard(config: RunConfig, strategy: Strategy, stage: Stage) -> GuardJob | None:
    """The guard of a stage, if it has one.

    A stage that trains the whole response cannot forget how to respond, and a first stage has nothing to forget.
    Whatever a stage trains, only a guard can choose between interpolated models.
    """
    trains_everything = all(weight > 0 for weight in stage.weights[PROMPT_ID + 1 :])
    needs_none = (trains_everything and not stage.interpolate) or stage is strategy.stages[0]
    if config.validation.guard is None or needs_none:
        return None
    return GuardJob(settings=config.validation.guard, assessment=settings_for_held_out(config, strategy))


def _num_steps(strategy: Strategy, stage: Stage, data: TrainingData) -> int:
    """Optimizer steps of a stage: a row without an optional key segment has nothing for a key stage."""
    store = data.store
    trained = count_trained(store.segment_counts, stage.weights, data.held_out, store.loss_weights)
    if not trained:
        raise ConfigError(
            f"strategies.{strategy.name}.{stage.name}: no training example has a token that this stage trains; see the "
            f"contract's key segments, the stage's weights, data.train.loss_weight_column, and validation.num_examples"
        )
    optimization = stage.optimization
    return count_steps(trained, optimization.global_batch_size, optimization.num_epochs, optimization.max_steps)


def _job(
    config: RunConfig, run: RunDir, settings: StageSettings, start: _Start, data: TrainingData, directory: StageDir
) -> StageJob:
    return StageJob(
        **dict(settings),
        model_dir=start.model_dir.absolute(),
        masters_dir=start.masters_dir.absolute() if start.masters_dir else None,
        store_dir=data.store.path.absolute(),
        other_stores=tuple(store.path.absolute() for store in data.other_stores),
        stage_dir=directory.path.absolute(),
        checkpoints=_checkpoints(config, run, directory),
    )


def _checkpoints(config: RunConfig, run: RunDir, directory: StageDir) -> str:
    """Folder or URI of a stage's checkpoints."""
    base = config.training.checkpoint_storage
    if base is None:
        return str(directory.checkpoints.absolute())
    place, question_mark, options = base.partition("?")
    return f"{place.rstrip('/')}/{quote(run.identity())}/{directory.path.name}{question_mark}{options}"


def _rounds_masters(settings: StageSettings) -> bool:
    """Whether a stage's model folder holds less than what was trained."""
    return settings.precision != "float32" and settings.training.export_precision != "float32"


def _continuations(plans: Iterable[Sequence[PlannedStage]]) -> defaultdict[str, dict[str, StageDir]]:
    """By digest of a stage, the folders of the stages that start from its result, each once."""
    children: defaultdict[str, dict[str, StageDir]] = defaultdict(dict)
    for plan in plans:
        for parent, child in pairwise(plan):
            children[parent.digest][child.digest] = child.directory
    return children


def _continued(config: RunConfig, planned: PlannedStage, children: tuple[StageDir, ...]) -> PlannedStage:
    """The stage with the stages that continue from it, to which it hands on its master weights."""
    hands_on = _rounds_masters(planned.job) and (bool(children) or config.training.keep_masters)
    return replace(planned, job=planned.job.model_copy(update={"hands_on_masters": hands_on}), continued_by=children)
