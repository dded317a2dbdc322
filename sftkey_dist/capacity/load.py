"""What a stage has to do, from the sampler's own plans."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from sftkey_dist.capacity.estimate import StageLoad
from sftkey_dist.capacity.speed import Rows
from sftkey_dist.sampler import StepPlan, StepPlanner

_PROMPT = 0


def stage_load(
    name: str,
    counts: np.ndarray,
    weights: Sequence[float],
    planner_for: Callable[[int, int], StepPlanner],
    most_steps: int,
) -> StageLoad:
    """
    Args:
        name: of strategy and stage.
        counts: tokens of each segment in each example, int [N, S], the prompt first.
        weights: loss weight of each segment.
        planner_for: the stage's planner for a number of ranks and a token budget.
        most_steps: steps to plan; the others are like them.
    """

    lengths = counts.sum(axis=1).astype(np.int64)
    of_examples = (
        lengths,
        lengths**2,
        counts[:, np.array(weights) > 0].sum(axis=1),
        lengths - counts[:, _PROMPT],
    )

    @lru_cache
    def rows_for(ranks: int, micro_batch_tokens: int) -> list[Rows]:
        plans = planner_for(ranks, micro_batch_tokens).plans()
        return [_rows(plan, of_examples) for plan in islice(plans, most_steps)]

    longest = int(lengths.max())
    return StageLoad(name, planner_for(1, longest).num_steps, longest, rows_for)


def _rows(plan: StepPlan, of_examples: Sequence[np.ndarray]) -> Rows:
    """What examples have, in the order of the fields of `Rows`, added up row by row."""
    is_there = plan.layout >= 0
    return Rows(*(np.where(is_there, of_example[plan.layout], 0).sum(axis=2) for of_example in of_examples))
