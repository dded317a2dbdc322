"""What a stage has to do, from the sampler's own plans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from sftkey_dist.capacity.estimate import Fullest, StageLoad
from sftkey_dist.capacity.memory import GuardCopy
from sftkey_dist.capacity.speed import Rows
from sftkey_dist.sampler import StepPlan, StepPlanner
from sftkey_dist.training.flops import prefix_tokens

_PROMPT = 0
_MOST_PLANNED_EXAMPLES = 20_000
"""In the search for the fullest rows: some seconds."""


def stage_load(
    name: str,
    counts: np.ndarray,
    weights: Sequence[float],
    planner_for: Callable[[int, int], StepPlanner],
    most_steps: int,
    *,
    stops_prefix: bool = False,
    guard: GuardCopy | None = None,
) -> StageLoad:
    """
    Args:
        name: of strategy and stage.
        counts: tokens of each segment in each example, int [N, S], the prompt first.
        weights: loss weight of each segment.
        planner_for: the stage's planner for a number of ranks and a token budget.
        most_steps: steps to plan for what a step takes on average; the fullest rows are those of all steps.
        stops_prefix: whether no gradient passes through what comes before an example's first target.
        guard: the model that a guard generates with beside the stage; None without one.
    """
    lengths = counts.sum(axis=1).astype(np.int64)
    prefixes = prefix_tokens(counts, weights) if stops_prefix else np.zeros_like(lengths)
    of_examples = (
        lengths,
        lengths**2,
        counts[:, np.array(weights) > 0].sum(axis=1),
        lengths - counts[:, _PROMPT],
        prefixes,
        prefixes**2,
    )
    longest = int(lengths.max())
    of_all = planner_for(1, longest)

    @cache
    def rows_for(ranks: int, micro_batch_tokens: int) -> list[Rows]:
        plans = planner_for(ranks, micro_batch_tokens).plans()
        return [_rows(plan, of_examples) for plan in islice(plans, most_steps)]

    @cache
    def contents() -> _StepContents:
        measured = np.stack([lengths - counts[:, _PROMPT], lengths - prefixes, prefixes], axis=1)
        return _StepContents.of(of_all, lengths, measured)

    @cache
    def fullest_for(ranks: int, micro_batch_tokens: int) -> Fullest:
        planner = planner_for(ranks, micro_batch_tokens)
        return _fullest(contents(), ranks, micro_batch_tokens, lambda step: _rows(planner.plan(step), of_examples))

    return StageLoad(name, of_all.num_steps, longest, rows_for, fullest_for, guard)


@dataclass(frozen=True, eq=False)
class _StepContents:
    """Of every step, arrays [steps]: what can be said of its rows before they are laid out.

    Attributes:
        examples: number.
        tokens: in all of them.
        longest: tokens of the longest one.
        shares: largest share of an example's tokens that each field of `Fullest` counts, [steps, fields].
    """

    examples: np.ndarray
    tokens: np.ndarray
    longest: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, planner: StepPlanner, lengths: np.ndarray, measured: np.ndarray) -> "_StepContents":
        steps = [planner.members(step) for step in range(planner.num_steps)]
        shares = measured / lengths[:, None]
        return cls(
            np.array([len(members) for members in steps]),
            np.array([lengths[members].sum() for members in steps]),
            np.array([lengths[members].max() for members in steps]),
            np.array([shares[members].max(axis=0) for members in steps]),
        )

    def most_tokens(self, ranks: int, micro_batch_tokens: int) -> np.ndarray:
        """That a row can have: level rows differ by less than an example, and are not filled beyond the budget."""
        rows = ranks * np.ceil(self.tokens / (ranks * micro_batch_tokens))
        level = np.ceil(self.tokens / rows) + self.longest
        return np.where(self.examples <= rows, self.longest, np.minimum(level, micro_batch_tokens)).astype(np.int64)


def _fullest(contents: _StepContents, ranks: int, micro_batch_tokens: int, rows_of: Callable[[int], Rows]) -> Fullest:
    """Plan steps, those that may have the fullest rows first, until no other step can have a fuller one.

    Where that takes too long, what the other steps can have at most counts.
    """
    most_tokens = contents.most_tokens(ranks, micro_batch_tokens)
    order = np.argsort(-most_tokens, kind="stable")
    bounds = np.ceil(most_tokens[:, None] * contents.shares)[order].astype(np.int64)
    of_those_left = np.maximum.accumulate(bounds[::-1])[::-1]
    found, num_planned = Fullest(0, 0, 0), 0
    for step, bound in zip(order, of_those_left, strict=True):
        bounded = _fuller(found, Fullest(*map(int, bound)))
        if found == bounded or num_planned > _MOST_PLANNED_EXAMPLES:
            return bounded
        found = _fuller(found, Fullest.of([rows_of(int(step))]))
        num_planned += int(contents.examples[step])
    return found


def _fuller(one: Fullest, other: Fullest) -> Fullest:
    return Fullest(*(max(getattr(one, name), getattr(other, name)) for name in vars(one)))


def _rows(plan: StepPlan, of_examples: Sequence[np.ndarray]) -> Rows:
    """What examples have, in the order of the fields of `Rows`, added up row by row."""
    is_there = plan.layout >= 0
    return Rows(*(np.where(is_there, of_example[plan.layout], 0).sum(axis=2) for of_example in of_examples))
