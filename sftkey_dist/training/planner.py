"""The plan of a stage, from what the stage is told."""

import numpy as np

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.sampler import CostModel, StepPlanner


def stage_planner(
    segment_counts: np.ndarray,
    weights: tuple[float, ...],
    optimization: OptimizationConfig,
    *,
    seed: int,
    micro_batch_tokens: int,
    data_ranks: int,
    cost: CostModel,
    held_out: np.ndarray | None = None,
) -> StepPlanner:
    """The planner that every rank of a stage makes, and that a preview makes before there are any.

    Args:
        segment_counts: tokens of each segment in each example, int [N, S].
        weights: loss weight of each segment, [S].
        optimization: of the stage.
        seed: of the data order.
        micro_batch_tokens: most tokens in a micro-batch.
        data_ranks: number of data-parallel ranks.
        cost: compute cost of an example by its length.
        held_out: indices of examples that are not trained on.
    """
    return StepPlanner(
        np.asarray(segment_counts),
        weights,
        seed=seed,
        global_batch_size=optimization.global_batch_size,
        num_epochs=optimization.num_epochs,
        max_steps=optimization.max_steps,
        look_ahead_steps=optimization.look_ahead_steps,
        data_ranks=data_ranks,
        micro_batch_tokens=micro_batch_tokens,
        cost=cost,
        held_out=held_out,
    )
