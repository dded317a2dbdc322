"""The plan of a stage: for every optimizer step its examples, where they lie, and the loss denominator.

Which examples form a step is a function of (data, seed, epoch, global batch size, look-ahead) alone; how they lie on
ranks depends on the number of ranks and the token budget. Every rank computes the same plan, so the denominator of the
global loss is known before the first forward pass and training on another number of ranks is the same
mathematics. The state to resume from is the step.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from sftkey_dist.sampler.balance import balance_step
from sftkey_dist.sampler.cost import CostModel
from sftkey_dist.sampler.order import shuffled_indices
from sftkey_dist.sampler.window import level_window


@dataclass(frozen=True)
class BalanceStats:
    """How level a step is.

    Attributes:
        tokens: most tokens on a rank over the mean; 1.0 is perfect.
        cost: the same for compute cost.
        loss_weight: the same for loss weight.
        density: share of the token budget that is used.
        straggler_loss: share of the step's time that ranks spend waiting, since micro-batch j lasts as long as on its
            slowest rank: 1 - Σ_j mean_r cost(r, j) / Σ_j max_r cost(r, j).
    """

    tokens: float
    cost: float
    loss_weight: float
    density: float
    straggler_loss: float


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step.

    Attributes:
        step: index of the step in the stage, from 0.
        epoch: pass over the data the step belongs to, from 0.
        micro_batches: example indices as ``[rank][micro_batch]``; an empty tuple stands for a dummy.
        loss_weight: Σ of loss weights over all target tokens of the step, on all ranks.
        segment_counts: tokens of each segment in the step, int [S].
        balance: how level the ranks are.
    """

    step: int
    epoch: int
    micro_batches: tuple[tuple[tuple[int, ...], ...], ...]
    loss_weight: float
    segment_counts: tuple[int, ...]
    balance: BalanceStats

    @cached_property
    def example_indices(self) -> list[int]:
        """All examples of the step, sorted."""
        return sorted(index for rank in self.micro_batches for content in rank for index in content)

    @cached_property
    def layout_digest(self) -> int:
        """32 bits over everything, to compare ranks by."""
        return _digest(self.step, self.micro_batches, self.loss_weight)

    @cached_property
    def members_digest(self) -> int:
        """32 bits over the step's examples, the same for any number of ranks, to compare a resumed run by."""
        return _digest(self.step, self.example_indices)


class StepPlanner:
    """Plans steps one at a time; holds only per-example counts."""

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
    ) -> None:
        """
        Args:
            segment_counts: tokens of each segment in each example, int [N, S]; segment 0 is the prompt.
            segment_weights: loss weight of each segment, [S]; the prompt's must be 0.
            seed: seed of the order.
            global_batch_size: examples per optimizer step; the last step of an epoch takes what is left.
            num_epochs: passes over the data.
            max_steps: upper bound of the number of steps.
            look_ahead_steps: neighbouring steps that may exchange examples; 1 for none.
            data_ranks: number of data-parallel ranks.
            micro_batch_tokens: most tokens in a micro-batch.
            cost: compute cost of an example by its length.

        Raises:
            ValueError: no examples, an example over the budget or without prompt, a weighted prompt, or an example
                whose loss weight is zero.
        """
        self._counts = segment_counts
        self._lengths = segment_counts.sum(axis=1).astype(np.int64)
        self._costs = cost(self._lengths)
        self._loss_weights = segment_counts @ np.asarray(segment_weights, dtype=np.float64)
        self._seed = seed
        self._global_batch_size = global_batch_size
        self._look_ahead_steps = look_ahead_steps
        self._data_ranks = data_ranks
        self._micro_batch_tokens = micro_batch_tokens
        self._check(segment_weights)
        self.steps_per_epoch = -(-len(self._lengths) // global_batch_size)
        self.num_steps = count_steps(len(self._lengths), global_batch_size, num_epochs, max_steps)

    def plan(self, step: int) -> StepPlan:
        """The plan of a step, 0 <= step < num_steps."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} is outside 0..{self.num_steps - 1}")
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        members = self._members(epoch, step_in_epoch)
        ranks = balance_step(
            self._lengths[members],
            self._costs[members],
            self._loss_weights[members],
            self._data_ranks,
            self._micro_batch_tokens,
        )
        micro_batches = tuple(
            tuple(tuple(int(members[position]) for position in content) for content in rank) for rank in ranks
        )
        return StepPlan(
            step=step,
            epoch=epoch,
            micro_batches=micro_batches,
            loss_weight=float(self._loss_weights[members].sum()),
            segment_counts=tuple(int(count) for count in self._counts[members].sum(axis=0)),
            balance=self._balance(micro_batches),
        )

    def _members(self, epoch: int, step_in_epoch: int) -> np.ndarray:
        window, step_in_window = divmod(step_in_epoch, self._look_ahead_steps)
        steps = self._window(epoch, window)
        return steps[step_in_window]

    @lru_cache(maxsize=2)  # noqa: B019 (a planner lives as long as its stage)
    def _window(self, epoch: int, window: int) -> list[np.ndarray]:
        """The members of a window's steps; a last, shorter step of an epoch exchanges nothing."""
        size = self._look_ahead_steps * self._global_batch_size
        examples = self._order(epoch)[window * size : (window + 1) * size]
        num_whole = len(examples) // self._global_batch_size
        whole, rest = np.split(examples, [num_whole * self._global_batch_size])
        steps = whole.reshape(num_whole, self._global_batch_size)
        levelled = level_window(steps, self._costs, self._loss_weights) if num_whole > 1 else steps
        return [*levelled, rest] if len(rest) else [*levelled]

    @lru_cache(maxsize=2)  # noqa: B019
    def _order(self, epoch: int) -> np.ndarray:
        return shuffled_indices(len(self._lengths), self._seed, epoch)

    def _balance(self, micro_batches: tuple[tuple[tuple[int, ...], ...], ...]) -> BalanceStats:
        tokens, costs, weights = (
            np.array([[values[list(content)].sum() for content in rank] for rank in micro_batches])
            for values in (self._lengths, self._costs, self._loss_weights)
        )
        return BalanceStats(
            tokens=_max_over_mean(tokens.sum(axis=1)),
            cost=_max_over_mean(costs.sum(axis=1)),
            loss_weight=_max_over_mean(weights.sum(axis=1)),
            density=float(tokens.sum() / (tokens.size * self._micro_batch_tokens)),
            straggler_loss=float(1 - costs.mean(axis=0).sum() / costs.max(axis=0).sum()),
        )

    def _check(self, segment_weights: tuple[float, ...]) -> None:
        if not len(self._lengths):
            raise ValueError("there are no examples to plan")
        if segment_weights[0] != 0:
            raise ValueError("the prompt must have loss weight 0: its first token has nothing to be predicted from")
        if (self._counts[:, 0] < 1).any():
            raise ValueError("every example needs a prompt token, which predicts the first response token")
        over = np.flatnonzero(self._lengths > self._micro_batch_tokens)
        if len(over):
            raise ValueError(
                f"example {over[0]} has {self._lengths[over[0]]} tokens, over the budget of "
                f"{self._micro_batch_tokens} a micro-batch"
            )
        empty = np.flatnonzero(self._loss_weights <= 0)
        if len(empty):
            raise ValueError(f"example {empty[0]} has no token with a positive loss weight in this stage")


def _digest(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def count_steps(num_examples: int, global_batch_size: int, num_epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of a stage."""
    steps = num_epochs * -(-num_examples // global_batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def _max_over_mean(loads: np.ndarray) -> float:
    return float(loads.max() / loads.mean())
