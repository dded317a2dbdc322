"""One optimizer step of a stage, the same on every rank."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from sftkey_dist.data.store import EncodedStore
from sftkey_dist.errors import TrainingError
from sftkey_dist.run_dir.artifacts.training import SegmentGradients, StepMetrics
from sftkey_dist.sampler import StepPlan
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.forward.loss import segment_metrics
from sftkey_dist.training.steps.passes import StepPasses, StepSums
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.steps.segment_gradients import compare_gradients

_EXAMPLES_NAMED = 8


def run_step(
    stage: RunningStage,
    plan: StepPlan,
    learning_rate: float,
    watch: Stopwatch,
    *,
    is_asked_to_stop: bool = False,
    around_last_micro_batch: AbstractContextManager[None] | None = None,
) -> tuple[StepMetrics, bool]:
    """One optimizer step.

    Args:
        stage: the stage.
        plan: of the step.
        learning_rate: of the step.
        watch: charges phases with their time.
        is_asked_to_stop: whether this rank is asked to stop.
        around_last_micro_batch: entered for the forward and backward pass of the last micro-batch.

    Returns:
        The metrics of the step, and whether any rank was asked to stop; equal on all ranks.

    Raises:
        TrainingError: loss or gradients are not finite (no rank has updated then), or ranks disagree on the plan.
    """
    engine = stage.engine
    gradients = _compare_gradients(stage, plan, watch)
    acting = stage.job.stage.acting(plan.step, plan.weighted_targets)
    scale = acting.scale(plan.weighted_targets)
    sums, projection = StepPasses(stage, acting, plan, scale, watch).take(around_last_micro_batch or nullcontext())
    with watch.phase("metrics"):
        weighted, anchored, router, by_segment, stops = _reduce(stage, plan, sums, is_asked_to_stop)
    mean_loss = float(weighted) / scale.denominator
    if not np.isfinite(mean_loss):
        raise _loss_not_finite(mean_loss, engine.gather_to_all(sums.not_finite), plan, stage.store)
    with watch.phase("optimizer"):
        grad_norm = engine.step(learning_rate)
    if not np.isfinite(grad_norm):
        raise _gradient_not_finite(grad_norm, plan, stage.store)
    record = StepMetrics(
        step=plan.step,
        epoch=plan.epoch,
        loss=mean_loss,
        learning_rate=learning_rate,
        grad_norm=grad_norm,
        tokens=sum(plan.segment_counts),
        loss_tokens=sum(n for n, weight in zip(plan.target_counts, acting.weights, strict=True) if weight > 0),
        balance=plan.balance.rounded(),
        segments=segment_metrics(stage.store.segment_names, by_segment),
        divergence=float(anchored) / (acting.anchor.weight * scale.denominator) if acting.anchor else None,
        router_loss=float(router) if acting.optimization.router_loss_weight else None,
        gradients=gradients,
        projection=projection,
    )
    return record, stops


def _compare_gradients(stage: RunningStage, plan: StepPlan, watch: Stopwatch) -> SegmentGradients | None:
    """The gradients of segments, in steps that compare them; before the step, which draws its own dropout."""
    every = stage.job.training.gradient_cosines_every_steps
    if every is None or plan.step % every:
        return None
    with watch.phase("gradients"):
        return compare_gradients(stage, plan)


def _reduce(
    stage: RunningStage, plan: StepPlan, sums: StepSums, is_asked_to_stop: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
    """Sum metrics over ranks in one collective.

    The sum also carries the plan's digest, to catch ranks that disagree, and whether to stop, so that all stop at one
    step.
    """
    flags = torch.tensor([plan.layout_digest, is_asked_to_stop], dtype=torch.float64)
    values = [flags, sums.weighted, sums.anchored, sums.router, sums.by_segment.flatten()]
    reduced = stage.engine.all_reduce_sum(torch.cat(values))
    if float(reduced[0]) != plan.layout_digest * stage.engine.world_size:
        raise TrainingError(f"ranks planned step {plan.step} differently; are code and data the same on all nodes?")
    return *reduced[2:5].split(1), reduced[5:].view_as(sums.by_segment), bool(reduced[1])


def _loss_not_finite(
    loss: float, examples_by_rank: Sequence[Sequence[int]], plan: StepPlan, store: EncodedStore
) -> TrainingError:
    """Name the ranks and the examples whose rows gave it."""
    where = "; ".join(
        f"rank {rank}: {', '.join(store.example_ids(indices[:_EXAMPLES_NAMED]))}"
        for rank, indices in enumerate(examples_by_rank)
        if indices
    )
    return TrainingError(
        f"loss of step {plan.step} is {loss}; no weight was updated. It came from the rows with these examples: "
        f"{where}. Look at them, or lower optimization.learning_rate if it was rising before"
    )


def _gradient_not_finite(norm: float, plan: StepPlan, store: EncodedStore) -> TrainingError:
    """The loss was finite everywhere, so no rank stands out."""
    ids = ", ".join(store.example_ids(plan.example_indices[:_EXAMPLES_NAMED]))
    return TrainingError(
        f"gradient norm of step {plan.step} is {norm}, with a finite loss on every rank; no weight was updated. Lower "
        f"optimization.learning_rate, or look at the step's {len(plan.example_indices)} examples, the first of which "
        f"are {ids}"
    )
