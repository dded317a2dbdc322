"""Derives the work of a stage from the plans of the sampler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from sftkey_dist.capacity.estimate import Fullest, StageLoad
from sftkey_dist.capacity.memory import GuardCopy
from sftkey_dist.capacity.speed import Rows
from sftkey_dist.sampler import AttentionWindow, StepPlan, StepPlanner, mean_attended_pairs
from sftkey_dist.training.forward.flops import prefix_tokens

_PROMPT = 0
_MAX_PLANNED_EXAMPLES = 20_000
"""Limit of the search for the fullest rows, which takes some seconds."""


def stage_load(
    name: str,
    counts: np.ndarray,
    weights: Sequence[float],
    planner_for: Callable[[int, int], StepPlanner],
    most_steps: int,
    *,
    window: AttentionWindow | None = None,
    stops_prefix: bool = False,
    guard: GuardCopy | None = None,
    counts_routers: bool = False,
    passes: int = 1,
) -> StageLoad:
    """The work of a stage.

    Args:
        name: names of the strategy and the stage.
        counts: tokens of each segment in each example, int [N, S], the prompt first.
        weights: loss weight of each segment.
        planner_for: returns the stage's planner for a number of ranks and a token budget.
        most_steps: maximum number of steps to plan for the average step; the fullest rows are found among all steps.
        window: of the model's attention; None if every query sees all tokens before it.
        stops_prefix: whether no gradient passes through the tokens before an example's first target.
        guard: the copy of the model with which a guard generates; None without a guard.
        counts_routers: whether one more forward pass of each row counts what its routers choose.
        passes: number of forward and backward passes over the rows of a step.
    """
    lengths = counts.sum(axis=1).astype(np.int64)
    is_trained = np.array(weights) > 0
    first = int(is_trained[_PROMPT])  # nothing predicts an example's first token
    observed = lengths - (first or counts[:, _PROMPT])
    prefixes = prefix_tokens(counts, weights) if stops_prefix else np.zeros_like(lengths)
    of_targets = counts[:, is_trained].sum(axis=1) - first
    pairs, prefix_pairs = (mean_attended_pairs(tokens, window) for tokens in (lengths, prefixes))
    of_examples = (lengths, pairs, of_targets, observed, prefixes, prefix_pairs)
    longest = int(lengths.max())
    of_all = planner_for(1, longest)

    @cache
    def rows_for(ranks: int, micro_batch_tokens: int) -> list[Rows]:
        plans = planner_for(ranks, micro_batch_tokens).plans()
        return [_rows(plan, of_examples) for plan in islice(plans, most_steps)]

    @cache
    def contents() -> _StepContents:
        measured = np.stack([observed, lengths - prefixes, prefixes], axis=1)
        return _StepContents.of(of_all, lengths, measured)

    @cache
    def fullest_for(ranks: int, micro_batch_tokens: int) -> Fullest:
        planner = planner_for(ranks, micro_batch_tokens)
        return _fullest(contents(), ranks, micro_batch_tokens, lambda step: _rows(planner.plan(step), of_examples))

    return StageLoad(
        name, of_all.num_steps, longest, rows_for, fullest_for, guard, counts_routers=counts_routers, passes=passes
    )


@dataclass(frozen=True, eq=False)
class _StepContents:
    """What is known about the rows of every step before they are laid out, as arrays [steps].

    Attributes:
        examples: number of examples.
        tokens: tokens of all examples.
        longest: tokens of the longest example.
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
        """Maximum tokens of a row: balanced rows differ by less than one example, and none exceeds the budget."""
        rows = ranks * np.ceil(self.tokens / (ranks * micro_batch_tokens))
        level = np.ceil(self.tokens / rows) + self.longest
        return np.where(self.examples <= rows, self.longest, np.minimum(level, micro_batch_tokens)).astype(np.int64)


def _fullest(contents: _StepContents, ranks: int, micro_batch_tokens: int, rows_of: Callable[[int], Rows]) -> Fullest:
    """Plan the steps with the fullest possible rows first, until no other step can have a fuller row.

    If this takes too long, the upper bound of the steps that are left is used.
    """
    most_tokens = contents.most_tokens(ranks, micro_batch_tokens)
    order = np.argsort(-most_tokens, kind="stable")
    bounds = np.ceil(most_tokens[:, None] * contents.shares)[order].astype(np.int64)
    of_those_left = np.maximum.accumulate(bounds[::-1])[::-1]
    found, num_planned = Fullest(0, 0, 0), 0
    for step, bound in zip(order, of_those_left, strict=True):
        bounded = _fuller(found, Fullest(*map(int, bound)))
        if found == bounded or num_planned > _MAX_PLANNED_EXAMPLES:
            return bounded
        found = _fuller(found, Fullest.of([rows_of(int(step))]))
        num_planned += int(contents.examples[step])
    return found


def _fuller(one: Fullest, other: Fullest) -> Fullest:
    return Fullest(*(max(getattr(one, name), getattr(other, name)) for name in vars(one)))


def _rows(plan: StepPlan, of_examples: Sequence[np.ndarray]) -> Rows:
    """Sums of the examples' numbers over each row, in the order of the fields of `Rows`."""
    is_there = plan.layout >= 0
    return Rows(*(np.where(is_there, of_example[plan.layout], 0).sum(axis=2) for of_example in of_examples))
