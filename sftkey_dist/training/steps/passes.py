"""The forward and backward passes of one optimizer step, after which the engine has the gradient of the step."""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sftkey_dist.run_dir.artifacts.training import Projection
from sftkey_dist.sampler import StepPlan
from sftkey_dist.strategy import LossScale, Stage
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.forward.collate import AnchoredExamples, PackedRow, pack, with_targets_of
from sftkey_dist.training.forward.loss import loss_sums
from sftkey_dist.training.forward.objective import objective_losses
from sftkey_dist.training.forward.router import RouterBalance
from sftkey_dist.training.steps.projection import project
from sftkey_dist.training.steps.running import RunningStage

_SEEDS = 2**32
"""Number of seeds that numpy's generator distinguishes."""


@dataclass
class StepSums:
    """What the micro-batches of a rank add up to.

    Attributes:
        weighted: sum of the loss, float64 [1].
        anchored: the anchor's part of it, float64 [1].
        router: sum of the loss of routers, before its factor, float64 [1].
        by_segment: sums of `segment_metrics` by segment id, float64 [S, 3].
        not_finite: indices of the examples in rows with a non-finite loss.
    """

    weighted: Tensor
    anchored: Tensor
    router: Tensor
    by_segment: Tensor
    not_finite: list[int]


@dataclass(frozen=True)
class StepPasses:
    """All passes of a step on this rank; methods are called on all ranks together.

    Attributes:
        stage: the stage.
        acting: the stage as it trains in this step.
        plan: plan of the step.
        scale: how its losses are weighted and added up.
        watch: charges phases with their time.
    """

    stage: RunningStage
    acting: Stage
    plan: StepPlan
    scale: LossScale
    watch: Stopwatch

    def take(self, around_last: AbstractContextManager[None]) -> tuple[StepSums, Projection | None]:
        """Compute the gradient: in one pass over the rows or, where gradients are projected, in one for each segment.

        Args:
            around_last: entered for the forward and backward pass of the last micro-batch.

        Returns:
            What the micro-batches add up to, and how gradients were projected; None where none were.
        """
        engine, names = self.stage.engine, self.stage.store.segment_names
        with self.watch.phase("data"):
            rows = list(self._rows())
        weighted, anchored, router = torch.zeros(3, 1, dtype=torch.float64)
        sums = StepSums(weighted, anchored, router, torch.zeros(len(names), 3, dtype=torch.float64), [])
        parts = self.acting.loss_parts(names, self.plan.weighted_targets)
        if len(parts) == 1:
            self._accumulate(rows, sums, around_last)
            return sums, None
        gradients: dict[str, Tensor] = {}
        for number, (name, segments) in enumerate(parts.items(), start=1):
            of_part = [with_targets_of(row, segments) for row in rows]
            self._accumulate(of_part, sums, around_last if number == len(parts) else nullcontext())
            with self.watch.phase("gradients"):
                gradients[name] = engine.take_gradient()
        with self.watch.phase("gradients"):
            gradient, projection = project(engine, gradients, self.stage.job.seed, self.plan.step)
            engine.put_gradient(gradient)
        return sums, projection

    def _accumulate(
        self, rows: Sequence[PackedRow], found: StepSums, around_last: AbstractContextManager[None]
    ) -> None:
        """Forward and backward pass of every micro-batch, which add to what was found before."""
        engine, acting, denominator = self.stage.engine, self.acting, self.scale.denominator
        self._set_seed()
        router_weight = acting.optimization.router_loss_weight
        balance = None
        if router_weight:
            with self.watch.phase("forward"):
                balance = engine.router_balance(rows)
        for index, row in enumerate(rows):
            is_last = index == len(rows) - 1
            with around_last if is_last else nullcontext():
                with self.watch.phase("forward"):
                    row = engine.place(row)
                    losses, router_loss = _forward(engine, row, acting, balance)
                    minimised = objective_losses(losses, row.target_segments, acting.objectives)
                    sums = loss_sums(losses, row, len(found.by_segment), minimised)
                    if router_loss is not None:
                        sums = sums.with_router(router_loss, router_weight * denominator)
                with self.watch.phase("backward"):
                    engine.backward(sums.weighted, denominator, ends_step=is_last)
            with self.watch.phase("backward"):
                found.by_segment += sums.by_segment.cpu()
                row_loss = sums.weighted.detach().double().cpu()
                found.weighted += row_loss
                found.anchored += sums.anchored.double().cpu()
                found.router += sums.router.double().cpu()
                if not torch.isfinite(row_loss):
                    content = self.plan.micro_batches(engine.data_rank)[index]
                    found.not_finite += [example for example in content if example not in found.not_finite]

    def _set_seed(self) -> None:
        """Dropout, where a model has any, depends on the step alone: a resumed stage draws the same, and so does every
        pass of a step. (transformers' own function loads peft for it.)"""
        engine = self.stage.engine
        seed = (self.stage.job.seed + self.plan.step * engine.world_size + engine.rank) % _SEEDS
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _rows(self) -> Iterator[PackedRow]:
        """The micro-batches of this rank; segment metrics of untrained tokens are measured every few steps."""
        stage, acting, plan = self.stage, self.acting, self.plan
        is_due = plan.step % stage.job.training.segment_metrics_every_steps == 0
        observe_all = is_due and not acting.stop_gradient_prefix  # a stopped prefix has no logits to measure
        held = acting.anchor.token_weights(plan.weighted_targets, self.scale.denominator) if acting.anchor else ()
        for content in plan.micro_batches(stage.engine.data_rank):
            examples = [stage.store.example(index) for index in content]
            anchored = AnchoredExamples(held, stage.start_predictions(content)) if held else None
            yield pack(examples, self.scale.weights, observe_all, stage.store.loss_weights_of(content), anchored)


def _forward(
    engine: Engine, row: PackedRow, acting: Stage, balance: RouterBalance | None
) -> tuple[Tensor, Tensor | None]:
    """Losses of a row's targets, and its part of the loss that balances routers, where that counts."""
    if balance is not None:
        losses, probabilities = engine.forward_with_router(row)
        return losses, balance.loss(probabilities)
    if acting.stop_gradient_prefix:
        return engine.forward_with_stopped_prefix(row), None
    return engine.forward(row), None
