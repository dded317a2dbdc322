"""What every stage of a run would take on a cluster."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from sftkey_dist.capacity import (
    Cluster,
    ModelSize,
    StageCapacity,
    StageLoad,
    estimate,
    size_of,
    smallest_cluster,
    stage_load,
    what_would_help,
)
from sftkey_dist.config.schema import RunConfig
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.shape import decoder_cost, read_shape
from sftkey_dist.pipeline.prepare import Preparation
from sftkey_dist.pipeline.stages import PlannedStage, planner_of, stages_to_train
from sftkey_dist.sampler import CostModel, StepPlanner
from sftkey_dist.strategy import Strategy
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
        most_steps: steps of each stage to plan; the rest is like them.
    """
    size, _, stages = _estimate(config, preparation, cluster, most_steps)
    return size.parameters, stages


def _estimate(
    config: RunConfig, preparation: Preparation, cluster: Cluster, most_steps: int
) -> tuple[ModelSize, Cluster, list[StageCapacity]]:
    shape = read_shape(preparation.model_dir, config.model.trust_remote_code)
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
        return planner_of(config, store, stage, cost, ranks, micro_batch_tokens)

    name = f"{strategy.name} {stage.name}"
    return stage_load(name, np.asarray(store.segment_counts), stage.weights, planner_for, most_steps)
