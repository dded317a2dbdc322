"""What every stage of a run would take on a cluster."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from sftkey_dist.capacity import (
    Cluster,
    GuardCopy,
    ModelSize,
    StageCapacity,
    StageLoad,
    estimate,
    size_of,
    smallest_cluster,
    stage_load,
    what_would_help,
)
from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.shape import decoder_cost, read_shape
from sftkey_dist.pipeline.prepare import Preparation
from sftkey_dist.pipeline.stages import PlannedStage, guard_of, planner_of, stages_to_train
from sftkey_dist.sampler import CostModel, StepPlanner
from sftkey_dist.strategy import Stage, Strategy
from sftkey_dist.training.collate import PROMPT_ID
from sftkey_dist.training.job import StageJob


def plan_capacity(
    config: RunConfig, preparation: Preparation, cluster: Cluster, most_steps: int
) -> tuple[ModelSize, list[StageCapacity], Path]:
    """Every stage that has to be trained, and the file that says so too; see `stage_capacities`."""
    size, cluster, stages = _estimate(config, preparation, cluster, most_steps)
    file = preparation.run.capacity
    write_json_atomically(
        file, {"model": asdict(size), "cluster": asdict(cluster), "stages": list(map(asdict, stages))}
    )
    return size, stages, file


def stage_capacities(
    config: RunConfig, preparation: Preparation, cluster: Cluster, most_steps: int
) -> tuple[int, list[StageCapacity]]:
    """Parameters of the model, and what every stage that has to be trained takes.

    Args:
        config: of the run.
        preparation: its data and the model's configuration.
        cluster: to look at.
        most_steps: steps of each stage to plan for what one takes on average; memory is of the fullest of all.

    Raises:
        ConfigError: hpZ's groups do not divide the ranks.
    """
    size, _, stages = _estimate(config, preparation, cluster, most_steps)
    return size.parameters, stages


def _estimate(
    config: RunConfig, preparation: Preparation, cluster: Cluster, most_steps: int
) -> tuple[ModelSize, Cluster, list[StageCapacity]]:
    shape = read_shape(preparation.model_dir, config.model.trust_remote_code)
    _require_whole_groups(config, cluster)
    device = cluster.accelerator.training_in(StageJob.resolve_precision(config.training, gpus_per_worker=1))
    cluster = replace(cluster, accelerator=device)
    size, cost = size_of(shape, config.training, device.compute_bytes), decoder_cost(shape)
    stages = [
        _capacity(config, size, cluster, _load(config, preparation, strategy, planned, cost, most_steps))
        for strategy, planned in stages_to_train(config, preparation)
    ]
    return size, cluster, stages


def _capacity(config: RunConfig, size: ModelSize, cluster: Cluster, load: StageLoad) -> StageCapacity:
    now = estimate(size, config.training, cluster, load)
    return StageCapacity(
        load.name,
        load.num_steps,
        now,
        smallest_cluster(size, config.training, cluster, load),
        what_would_help(size, config.training, cluster, load, now),
    )


def _load(
    config: RunConfig,
    preparation: Preparation,
    strategy: Strategy,
    planned: PlannedStage,
    cost: CostModel,
    most_steps: int,
) -> StageLoad:
    store, stage = preparation.stores[strategy.form], planned.stage

    def planner_for(ranks: int, micro_batch_tokens: int) -> StepPlanner:
        return planner_of(config, preparation, strategy.form, stage, cost, ranks, micro_batch_tokens)

    name = f"{strategy.name} {stage.name}"
    return stage_load(
        name,
        np.asarray(store.segment_counts),
        stage.weights,
        planner_for,
        most_steps,
        stops_prefix=stage.stop_gradient_prefix,
        guard=_guard_copy(config, store, strategy, stage),
    )


def _guard_copy(config: RunConfig, store: EncodedStore, strategy: Strategy, stage: Stage) -> GuardCopy | None:
    guard = guard_of(config, strategy, stage)
    if guard is None or guard.settings.signal != "generation":
        return None
    longest = int(np.asarray(store.segment_counts[:, PROMPT_ID]).max()) + guard.assessment.settings.max_new_tokens
    return GuardCopy(weight_bytes(config), guard.assessment.settings.batch_size * longest)


def weight_bytes(config: RunConfig) -> int:
    """Of a weight in a stage's model folder, on accelerators."""
    precision = StageJob.resolve_precision(config.training, gpus_per_worker=1)
    return int(getattr(torch, "float32" if config.training.export_precision == "float32" else precision).itemsize)


def _require_whole_groups(config: RunConfig, cluster: Cluster) -> None:
    neighbours = config.training.zero.secondary_partition_ranks
    if cluster.ranks % neighbours:
        raise ConfigError(
            f"training.zero.secondary_partition_ranks={neighbours} must divide the {cluster.ranks} ranks of "
            f"{cluster.nodes} x {cluster.gpus_per_node} accelerators"
        )
