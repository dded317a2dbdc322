"""The plan of a stage: for every optimizer step, its examples, their placement, and the denominator of the loss.

Examples without a token that the stage trains are left out. Which of the other examples form a step depends only on
(data, seed, epoch, global batch size, look-ahead). Their placement also depends on the number of ranks and the token
budget. Every rank computes the same plan. Therefore the denominator of the global loss is known before the first
forward pass, and training on a different number of ranks is mathematically the same. Resuming only needs the step.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from sftkey_dist.sampler.balance import balance_step
from sftkey_dist.sampler.cost import CostModel
from sftkey_dist.sampler.order import shuffled_indices
from sftkey_dist.sampler.stats import BalanceStats, balance_stats
from sftkey_dist.sampler.window import level_window

_LARGEST_WEIGHT = 1_000_000
_UNITS_PER_WEIGHT = 1000
"""Resolution of fractional loss weights in balancing. Integers are used because their sums are the same on every
machine."""
_LARGEST_UNITS = 2**31
"""Of an example, where examples have weights: sums over all examples stay far below the limit of 64 bits."""


@dataclass(frozen=True, eq=False)
class StepPlan:
    """One optimizer step.

    Attributes:
        step: index of the step in the stage, from 0.
        epoch: pass over the data the step belongs to, from 0.
        layout: int [ranks, micro-batches, k], example indices, -1 for an empty slot.
        loss_weight: sum of loss weights over all target tokens of the step, on all ranks.
        segment_counts: tokens of each segment in the step, int [S].
        weighted_targets: see `weighted_targets`, of the step's examples, [S].
        balance: how evenly the ranks are loaded.
    """

    step: int
    epoch: int
    layout: np.ndarray
    loss_weight: float
    segment_counts: tuple[int, ...]
    weighted_targets: tuple[float, ...]
    balance: BalanceStats

    def micro_batches(self, rank: int) -> list[list[int]]:
        """Example indices of each micro-batch of a rank; an empty list is a dummy micro-batch."""
        return [sorted(content[content >= 0].tolist()) for content in self.layout[rank]]

    @cached_property
    def example_indices(self) -> list[int]:
        """All examples of the step, sorted."""
        indices: list[int] = np.sort(self.layout[self.layout >= 0]).tolist()
        return indices

    @cached_property
    def target_counts(self) -> tuple[int, ...]:
        """Targets of each segment in the step, int [S]: all tokens but the first one of each example."""
        prompt, *others = self.segment_counts
        return (prompt - len(self.example_indices), *others)

    @cached_property
    def layout_digest(self) -> int:
        """32-bit digest of the whole plan of the step, for comparing ranks."""
        ranks = [self.micro_batches(rank) for rank in range(len(self.layout))]
        return _digest(self.step, ranks, self.loss_weight)

    @cached_property
    def members_digest(self) -> int:
        """32-bit digest of the step's examples, for checking a resumed run; it does not depend on the number of
        ranks."""
        return _digest(self.step, self.example_indices)


class StepPlanner:
    """Plans steps one at a time, from the token counts of the examples only."""

    def __init__(
        self,
        segment_counts: np.ndarray,
        segment_weights: tuple[float, ...],
        *,
        seed: int,
        global_batch_size: int,
        num_epochs: int,
        max_steps: int | None,
        look_ahead_steps: int,
        data_ranks: int,
        micro_batch_tokens: int,
        cost: CostModel,
        held_out: np.ndarray | None = None,
        example_weights: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            segment_counts: tokens of each segment in each example, int [N, S]; segment 0 is the prompt.
            segment_weights: loss weight of each segment, [S]. Nothing predicts the first token of an example, so that
                it has no loss whatever the prompt's weight is.
            seed: seed of the shuffled order.
            global_batch_size: examples per optimizer step; the last step of an epoch may have fewer.
            num_epochs: passes over the data.
            max_steps: maximum number of steps.
            look_ahead_steps: number of consecutive steps that may exchange examples; 1 turns it off.
            data_ranks: number of data-parallel ranks.
            micro_batch_tokens: maximum number of tokens in a micro-batch.
            cost: compute cost of an example by its length.
            held_out: indices of examples that are not trained on.
            example_weights: factor of the loss weights of each example's tokens, [N]; None if all are 1.

        Raises:
            ValueError: There are no examples; an example exceeds the token budget or has no prompt; or no example has a
                token of positive loss weight.
        """
        self._counts = segment_counts
        self.lengths = segment_counts.sum(axis=1).astype(np.int64)
        self._costs = cost(self.lengths)
        self._segment_weights = segment_weights
        self._example_weights = example_weights
        self._loss_units = _loss_units(segment_counts, segment_weights, example_weights)
        self._seed = seed
        self._global_batch_size = global_batch_size
        self._look_ahead_steps = look_ahead_steps
        self.data_ranks = data_ranks
        self.micro_batch_tokens = micro_batch_tokens
        self._trained = _trained_indices(self._loss_units, held_out)
        self._check(segment_weights)
        self.steps_per_epoch = -(-len(self._trained) // global_batch_size)
        self.num_steps = count_steps(len(self._trained), global_batch_size, num_epochs, max_steps)

    def plan(self, step: int) -> StepPlan:
        """The plan of a step, 0 <= step < num_steps."""
        members = self.members(step)
        positions = balance_step(
            self.lengths[members],
            self._costs[members],
            self._loss_units[members],
            self.data_ranks,
            self.micro_batch_tokens,
        )
        layout = np.where(positions >= 0, members[positions], positions)
        of_members = None if self._example_weights is None else self._example_weights[members]
        targets = weighted_targets(self._counts[members], of_members)
        return StepPlan(
            step=step,
            epoch=step // self.steps_per_epoch,
            layout=layout,
            loss_weight=math.fsum(n * weight for n, weight in zip(targets, self._segment_weights, strict=True)),
            segment_counts=tuple(self._counts[members].sum(axis=0, dtype=np.int64).tolist()),
            weighted_targets=targets,
            balance=self.balance(layout),
        )

    def balance(self, layout: np.ndarray) -> BalanceStats:
        """How evenly a layout, int [ranks, micro-batches, k], loads the ranks; it may come from this plan or a
        baseline."""
        return balance_stats(layout, self.lengths, self._costs, self._loss_units, self.micro_batch_tokens)

    def plans(self, first_step: int = 0) -> Iterator[StepPlan]:
        """The plans from a step on, computed lazily."""
        return map(self.plan, range(first_step, self.num_steps))

    def members(self, step: int) -> np.ndarray:
        """Indices of a step's examples, int64; 0 <= step < num_steps."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} is outside 0..{self.num_steps - 1}")
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        window, step_in_window = divmod(step_in_epoch, self._look_ahead_steps)
        steps = self._window(epoch, window)
        return steps[step_in_window]

    @lru_cache(maxsize=2)  # noqa: B019 (a planner lives as long as its stage)
    def _window(self, epoch: int, window: int) -> list[np.ndarray]:
        """The examples of the steps of a window. A shorter last step of an epoch does not exchange examples."""
        size = self._look_ahead_steps * self._global_batch_size
        examples = self._order(epoch)[window * size : (window + 1) * size]
        num_whole = len(examples) // self._global_batch_size
        whole, rest = np.split(examples, [num_whole * self._global_batch_size])
        whole = whole.reshape(num_whole, self._global_batch_size)
        levelled = level_window(whole, self._costs, self._loss_units) if num_whole > 1 else whole
        return [*levelled, rest] if len(rest) else [*levelled]

    @lru_cache(maxsize=2)  # noqa: B019
    def _order(self, epoch: int) -> np.ndarray:
        order: np.ndarray = self._trained[shuffled_indices(len(self._trained), self._seed, epoch)]
        return order

    def _check(self, segment_weights: tuple[float, ...]) -> None:
        for name in ("_global_batch_size", "_look_ahead_steps", "data_ranks", "micro_batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.strip('_')} must be at least 1, got {getattr(self, name)}")
        if not len(self.lengths):
            raise ValueError("there are no examples to plan")
        if (self._counts[:, 0] < 1).any():
            raise ValueError(
                "every example needs at least one prompt token, from which the first response token is predicted"
            )
        over = np.flatnonzero(self.lengths > self.micro_batch_tokens)
        if len(over):
            raise ValueError(
                f"example {over[0]} has {self.lengths[over[0]]} tokens, over the budget of "
                f"{self.micro_batch_tokens} tokens per micro-batch"
            )
        if not all(0 <= weight <= _LARGEST_WEIGHT for weight in segment_weights):
            raise ValueError(f"loss weights must be from 0 to {_LARGEST_WEIGHT:,}, got {segment_weights}")
        if not len(self._trained):
            raise ValueError("no example has a token with a positive loss weight in this stage")


def _digest(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def count_steps(num_examples: int, global_batch_size: int, num_epochs: int, max_steps: int | None) -> int:
    """Number of optimizer steps of a stage."""
    steps = num_epochs * -(-num_examples // global_batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def count_trained(
    segment_counts: np.ndarray,
    segment_weights: tuple[float, ...],
    held_out: np.ndarray | None = None,
    example_weights: np.ndarray | None = None,
) -> int:
    """Number of examples with a token of positive loss weight that are not held out; a stage trains on these only."""
    return len(_trained_indices(_loss_units(np.asarray(segment_counts), segment_weights, example_weights), held_out))


def weighted_targets(segment_counts: np.ndarray, example_weights: np.ndarray | None = None) -> tuple[float, ...]:
    """Number of targets of each segment, [S], where each counts with the weight of its example.

    Args:
        segment_counts: tokens of each segment in each example, int [N, S]. The first token of an example belongs to
            segment 0, the prompt, and is no target.
        example_weights: [N]; None if all are 1.
    """
    if example_weights is None:
        prompt, *others = segment_counts.sum(axis=0, dtype=np.int64).tolist()
        return (prompt - len(segment_counts), *others)
    targets = segment_counts.astype(np.float64)
    targets[:, 0] -= 1
    weighted = targets * np.asarray(example_weights, dtype=np.float64)[:, None]
    return tuple(math.fsum(column) for column in weighted.T.tolist())  # fsum: the same on every machine


def _trained_indices(loss_units: np.ndarray, held_out: np.ndarray | None) -> np.ndarray:
    has_loss = loss_units > 0
    if held_out is not None:
        has_loss[held_out] = False
    return np.flatnonzero(has_loss)


def _loss_units(
    segment_counts: np.ndarray, segment_weights: tuple[float, ...], example_weights: np.ndarray | None
) -> np.ndarray:
    """Loss weight of each example in integer units, int64 [N]; at least 1 if any of its tokens has a weight."""
    whole = all(float(weight).is_integer() for weight in segment_weights)
    units = [
        int(weight) if whole else max(1, round(weight * _UNITS_PER_WEIGHT)) if weight > 0 else 0
        for weight in segment_weights
    ]
    loss: np.ndarray = segment_counts.astype(np.int64) @ np.array(units, dtype=np.int64) - units[0]
    return loss if example_weights is None else _scaled(loss, example_weights)


def _scaled(loss_units: np.ndarray, example_weights: np.ndarray) -> np.ndarray:
    """Integer units, int64 [N], proportional to the product with each example's weight."""
    loss = loss_units * np.asarray(example_weights, dtype=np.float64)
    largest = float(loss.max(initial=0.0))
    if largest == 0:
        return np.zeros_like(loss_units)
    return np.where(loss > 0, np.maximum(1, np.rint(loss * (_LARGEST_UNITS / largest))), 0).astype(np.int64)
