"""What a stage trains and how, and a strategy as a list of stages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftkey_dist.config.objective import Objective
from sftkey_dist.config.own_data import OwnDataConfig
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.contract import PROMPT, PROMPT_ID, Form, segments_of
from sftkey_dist.sampler import CostModel, StepPlanner


@dataclass(frozen=True)
class Replay:
    """Steps in which a stage trains as the stage before it; see `Stage` for the other attributes.

    Attributes:
        every: one of so many steps is replayed.
    """

    every: int
    weights: tuple[float, ...]
    segment_groups: tuple[int, ...] = ()
    objectives: tuple[Objective, ...] = ()


@dataclass(frozen=True)
class Anchor:
    """A penalty on how far predictions move from those at the start of a stage.

    Attributes:
        weight: factor of the mean divergence.
        segments: whether a token is anchored, by its segment id, [S].
        top_k: number of most likely tokens that are kept of the start's predictions.
    """

    weight: float
    segments: tuple[bool, ...]
    top_k: int

    def most_bytes(self, segment_counts: np.ndarray) -> int:
        """Most bytes of the start's predictions for some examples, from their int [N, S] tokens by segment."""
        return 8 * self.top_k * int(np.asarray(segment_counts, dtype=np.int64).sum(axis=0) @ np.array(self.segments))

    def token_weights(self, targets: Sequence[float], denominator: float) -> tuple[float, ...]:
        """Weight of a token's divergence by its segment id, [S], in a sum that is divided by the denominator.

        Args:
            targets: `weighted_targets` of the step, on all ranks, [S].
            denominator: divisor of the loss of the step.
        """
        total = float(np.dot(targets, self.segments))
        return tuple(self.weight * denominator / total if anchored and total else 0.0 for anchored in self.segments)


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        name: name of the stage within its strategy.
        weights: loss weight of a token by its segment id, [S].
        optimization: optimizer, schedule and batch size.
        stop_gradient_prefix: whether gradients are stopped before an example's first trained token.
        segment_groups: for each segment id the group whose mean it belongs to, [S]; empty if the loss is one mean over
            all tokens.
        objectives: objective of a token by its segment id, [S]; empty if all are the negative log-likelihood.
        replay: steps that use other weights and objectives; None for none.
        interpolate: fractions of the stage's update; the guard also scores the models that have them.
        anchor: penalty on how far predictions move; None for none.
        data: responses of the model itself that the stage trains; None for those of the references.
        project_conflicts: whether the gradients of `loss_parts` are projected on each other where they conflict.
    """

    name: str
    weights: tuple[float, ...]
    optimization: OptimizationConfig
    stop_gradient_prefix: bool = False
    segment_groups: tuple[int, ...] = ()
    objectives: tuple[Objective, ...] = ()
    replay: Replay | None = None
    interpolate: tuple[float, ...] = ()
    anchor: Anchor | None = None
    data: OwnDataConfig | None = None
    project_conflicts: bool = False

    def acting(self, step: int, targets: Sequence[float]) -> "Stage":
        """The stage as it trains in a step: with what it replays, every so many steps.

        Args:
            step: number of the step, from 0 on.
            targets: `weighted_targets` of the step, on all ranks, [S]. A step without a token that the stage before
                trains is not replayed.
        """
        replay = self.replay
        if replay is None or (step + 1) % replay.every or not np.dot(targets, replay.weights):
            return self
        return replace(
            self,
            weights=replay.weights,
            segment_groups=replay.segment_groups,
            objectives=replay.objectives,
            anchor=None,
        )

    @property
    def all_objectives(self) -> tuple[Objective, ...]:
        """The objectives of all steps."""
        return (*self.objectives, *(self.replay.objectives if self.replay else ()))

    @property
    def has_logits(self) -> tuple[bool, ...]:
        """Whether the logits of a segment's tokens are needed for the loss, by segment id, [S]."""
        anchored = self.anchor.segments if self.anchor else (False,) * len(self.weights)
        return tuple(weight > 0 or held for weight, held in zip(self.weights, anchored, strict=True))

    def loss_parts(self, names: Sequence[str], targets: Sequence[float]) -> dict[str, set[int]]:
        """The parts of a loss whose gradients are taken one by one: segment ids by the name of the segment.

        A segment's part is what its text, its tags and, for the last one, the end-of-turn token add to the loss. A
        prompt with a weight has a part of its own. Every segment id is in one part: what adds nothing is in the first.
        All are in one part where no gradient is projected.

        Args:
            names: the names of all segment ids.
            targets: `weighted_targets`, on all ranks, [S].
        """
        everything = set(range(len(names)))
        if not self.project_conflicts:
            return {"": everything}
        adds = {number for number, added in enumerate(np.multiply(self.weights, targets)) if added > 0}
        by_name = {PROMPT: {PROMPT_ID}} | segments_of(names)
        parts = {name: ids for name, ids in by_name.items() if ids & adds}
        first = next(iter(parts))
        return parts | {first: parts[first] | everything.difference(*parts.values())}

    def scale(self, targets: Sequence[float]) -> "LossScale":
        """How the losses of some tokens are weighted and added up.

        Args:
            targets: their `weighted_targets`, on all ranks, [S].
        """
        if not self.segment_groups:
            products = (number * weight for number, weight in zip(targets, self.weights, strict=True))
            return LossScale(self.weights, math.fsum(products))  # fsum: the same on every machine
        groups = np.array(self.segment_groups)
        weights = np.array(self.weights)
        size = groups.max() + 1
        sums = np.bincount(groups, weights=weights * np.array(targets), minlength=size)
        of_groups = np.zeros(size)
        np.maximum.at(of_groups, groups, weights)
        means = np.divide(of_groups, sums, out=np.zeros(size), where=sums > 0)
        return LossScale(tuple((weights * means[groups]).tolist()), 1.0)

    def planner(
        self,
        segment_counts: np.ndarray,
        *,
        seed: int,
        micro_batch_tokens: int,
        data_ranks: int,
        cost: CostModel,
        held_out: np.ndarray | None = None,
        example_weights: np.ndarray | None = None,
    ) -> StepPlanner:
        """The step planner of this stage, the same on every rank and in previews.

        Args:
            segment_counts: number of tokens of each segment in each example, int [N, S].
            seed: seed of the data order.
            micro_batch_tokens: maximum number of tokens in a micro-batch.
            data_ranks: number of ranks that get different rows.
            cost: compute cost of an example by its length.
            held_out: indices of examples that are not trained on.
            example_weights: factor of the loss weights of each example's tokens, [N]; None if all are 1.

        Raises:
            ValueError: no example has a trained token, or a number is out of range.
        """
        return StepPlanner(
            np.asarray(segment_counts),
            self.weights,
            seed=seed,
            global_batch_size=self.optimization.global_batch_size,
            num_epochs=self.optimization.num_epochs,
            max_steps=self.optimization.max_steps,
            look_ahead_steps=self.optimization.look_ahead_steps,
            data_ranks=data_ranks,
            micro_batch_tokens=micro_batch_tokens,
            cost=cost,
            held_out=held_out,
            example_weights=example_weights,
        )


@dataclass(frozen=True)
class LossScale:
    """The loss is the sum of weight · loss over tokens, divided by the denominator.

    Attributes:
        weights: weight of a token by its segment id, [S].
        denominator: divisor of the sum over all ranks.
    """

    weights: tuple[float, ...]
    denominator: float


@dataclass(frozen=True)
class Strategy:
    """A named list of stages over one form of the response."""

    name: str
    form: Form
    stages: tuple[Stage, ...]
