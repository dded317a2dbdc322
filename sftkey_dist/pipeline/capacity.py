"""Capacity estimates of a run's stages on a cluster."""

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
    exported_bytes,
    size_of,
    smallest_cluster,
    stage_load,
    what_would_help,
)
from sftkey_dist.config.model import PACKED_ATTENTION
from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import PROMPT_ID
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.shape import decoder_cost, read_shape
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.sampler import CostModel
from sftkey_dist.training.job import StageJob


def plan_capacity(plan: RunPlan, cluster: Cluster, most_steps: int) -> tuple[ModelSize, list[StageCapacity], Path]:
    """The model's size, the capacity of every stage to be trained, and the file with both; see `stage_capacities`."""
    size, cluster, stages = _estimate(plan, cluster, most_steps)
    file = plan.run.capacity
    write_json_atomically(
        file, {"model": asdict(size), "cluster": asdict(cluster), "stages": list(map(asdict, stages))}
    )
    return size, stages, file


def stage_capacities(plan: RunPlan, cluster: Cluster, most_steps: int) -> tuple[int, list[StageCapacity]]:
    """The number of parameters of the model, and the capacity of every stage to be trained.

    Args:
        plan: plan of the run.
        cluster: cluster to estimate for.
        most_steps: number of steps per stage from which averages are computed. Memory is that of the fullest step of
            all.

    Raises:
        ConfigError: the number of ranks is not a multiple of the size of groups of ranks.
    """
    size, _, stages = _estimate(plan, cluster, most_steps)
    return size.parameters, stages


def _estimate(plan: RunPlan, cluster: Cluster, most_steps: int) -> tuple[ModelSize, Cluster, list[StageCapacity]]:
    config = plan.config
    shape = read_shape(plan.preparation.model_dir, config.model.trust_remote_code)
    _require_whole_groups(config, cluster)
    device = cluster.accelerator.training_in(StageJob.resolve_precision(config.training, gpus_per_worker=1))
    cluster = replace(cluster, accelerator=device)
    size, cost = size_of(shape, config.training, device.compute_bytes), decoder_cost(shape)
    stops_prefix = any(planned.stage.stop_gradient_prefix for planned in plan.stages)
    loads = [_load(config, planned, cost, most_steps, some_stage_stops_prefix=stops_prefix) for planned in plan.stages]
    stages = [_capacity(config, size, cluster, load) for load in loads]
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
    config: RunConfig, planned: PlannedStage, cost: CostModel, most_steps: int, *, some_stage_stops_prefix: bool
) -> StageLoad:
    counts, names = np.asarray(planned.data.store.segment_counts), planned.data.store.segment_names
    load = stage_load(
        planned.name,
        counts,
        planned.stage.has_logits,
        lambda ranks, micro_batch_tokens: planned.planner(cost, ranks, micro_batch_tokens),
        most_steps,
        window=cost.window,
        stops_prefix=planned.stage.stop_gradient_prefix,
        guard=_guard_copy(config, planned),
        counts_routers=bool(planned.stage.optimization.router_loss_weight),
        passes=len(planned.stage.loss_parts(names, counts.sum(axis=0))),
    )
    # Settings are the run's: what one stage excludes cannot be proposed for another.
    return replace(
        load,
        may_share_rows=config.model.attention in PACKED_ATTENTION and not some_stage_stops_prefix,
        may_recompute=not some_stage_stops_prefix,
        least_row_tokens=config.data.max_length_tokens,
    )


def _guard_copy(config: RunConfig, planned: PlannedStage) -> GuardCopy | None:
    guard, prompts = planned.job.guard, np.asarray(planned.data.store.segment_counts[:, PROMPT_ID])
    if guard is None or guard.settings.signal != "generation":
        return None
    longest = int(prompts.max()) + guard.assessment.settings.max_new_tokens
    return GuardCopy(weight_bytes(config), guard.assessment.settings.batch_size * longest)


def weight_bytes(config: RunConfig) -> int:
    """Bytes of a weight in a stage's model folder, if it is trained on accelerators."""
    precision = StageJob.resolve_precision(config.training, gpus_per_worker=1)
    return exported_bytes(config.training, getattr(torch, precision).itemsize)


def _require_whole_groups(config: RunConfig, cluster: Cluster) -> None:
    for key, size in config.training.group_sizes.items():
        if cluster.ranks % size:
            raise ConfigError(
                f"{key}={size} must divide the {cluster.ranks} ranks of {cluster.nodes} x {cluster.gpus_per_node} "
                f"accelerators"
            )
