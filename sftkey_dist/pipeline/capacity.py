"""What every stage of a run would take on a cluster."""

from dataclasses import asdict
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
from sftkey_dist.pipeline.stages import PlannedStage, held_out_of, plan_stages
from sftkey_dist.sampler import CostModel, StepPlanner
from sftkey_dist.strategy import Strategy
from sftkey_dist.training.planner import stage_planner


def plan_capacity(
    config: RunConfig, preparation: Preparation, cluster: Cluster, most_steps: int
) -> tuple[ModelSize, list[StageCapacity], Path]:
    """Every stage that has to be trained, and the file that says so too.

    Args:
        config: of the run.
        preparation: its data and the model's configuration.
        cluster: to look at.
        most_steps: steps of each stage to plan; the rest is like them.
    """
    shape = read_shape(preparation.model_dir, config.model.trust_remote_code)
    size, cost = size_of(shape), decoder_cost(shape)
    stages = []
    for strategy in preparation.strategies:
        for planned in plan_stages(config, preparation)[strategy.name]:
            if planned.shared_with is None:
                load = _load(config, preparation, strategy, planned, cost, most_steps)
                stages.append(_capacity(config, size, cluster, load))
    file = preparation.run.capacity
    write_json_atomically(
        file, {"model": asdict(size), "cluster": asdict(cluster), "stages": list(map(asdict, stages))}
    )
    return size, stages, file


def _capacity(config: RunConfig, size: ModelSize, cluster: Cluster, load: StageLoad) -> StageCapacity:
    return StageCapacity(
        load.name,
        load.num_steps,
        estimate(size, config.training, cluster, load),
        smallest_cluster(size, config.training, cluster, load),
        what_would_help(size, config.training, cluster, load),
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
        return stage_planner(
            store.segment_counts,
            stage.weights,
            stage.optimization,
            seed=config.seed,
            micro_batch_tokens=micro_batch_tokens,
            data_ranks=ranks,
            cost=cost,
            held_out=held_out_of(config, store),
        )

    name = f"{strategy.name} {stage.name}"
    return stage_load(name, np.asarray(store.segment_counts), stage.weights, planner_for, most_steps)
