"""Compares the gradients of a response's segments: whether training one of them helps or hurts another.

The cosine between two gradients is above 0 where a small step along one lowers the other's loss too, and below 0 where
it raises it (Yu et al. 2020, arXiv:2001.06782, call that a conflict).
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from sftkey_dist.contract import segments_of
from sftkey_dist.run_dir.artifacts.training import SegmentGradients
from sftkey_dist.sampler import StepPlan
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.forward.collate import pack
from sftkey_dist.training.forward.loss import NLL
from sftkey_dist.training.steps.running import RunningStage

_ELEMENTS_AT_ONCE = 2**20
"""Elements of each gradient that are multiplied at a time, in float64."""


def compare_gradients(stage: RunningStage, plan: StepPlan) -> SegmentGradients:
    """Compute the gradient of every segment for the examples of a step, and compare them; called on all ranks together.

    A gradient is that of the mean negative log-likelihood of a segment's tokens in a step, whatever the stage trains,
    on all ranks together. It takes a forward and a backward pass for each segment. Nothing is updated.
    """
    names = stage.store.segment_names
    gradients = {
        segment: gradient
        for segment, ids in segments_of(names).items()
        if (gradient := _gradient(stage, plan, [float(number in ids) for number in range(len(names))])) is not None
    }
    return comparison(list(gradients), inner_products(stage.engine, list(gradients.values())))


def inner_products(engine: Engine, gradients: Sequence[Tensor]) -> Tensor:
    """The inner products of n gradients, float64 [n, n], the same on all ranks.

    Args:
        engine: whose gradients they are.
        gradients: this rank's slices of each, as the engine gives them. Slices of different ranks are of different
            weights, so that inner products add up.
    """
    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for slices in zip(*(gradient.split(_ELEMENTS_AT_ONCE) for gradient in gradients), strict=True):
        rows = torch.stack(slices).to(engine.device, torch.float64)
        total += (rows @ rows.T).cpu()
    return engine.all_reduce_sum(total)


def comparison(names: Sequence[str], products: Tensor) -> SegmentGradients:
    """Norms and cosines of the gradients of n segments from their `inner_products`, [n, n]."""
    norms = products.diagonal().sqrt()
    cosines = products / (norms[:, None] * norms[None, :])
    pairs = combinations(enumerate(names), 2)
    return SegmentGradients(
        norms=dict(zip(names, norms.tolist(), strict=True)),
        cosines={f"{one} and {other}": float(cosines[i, j]) for (i, one), (j, other) in pairs},
    )


def _gradient(stage: RunningStage, plan: StepPlan, weights: list[float]) -> Tensor | None:
    """This rank's slices of the gradient of a mean over tokens with a weight of 1; None if no token has one."""
    engine = stage.engine
    num_targets = sum(n * weight for n, weight in zip(plan.target_counts, weights, strict=True))
    if not num_targets:
        return None
    contents = plan.micro_batches(engine.data_rank)
    for index, content in enumerate(contents):
        row = engine.place(pack([stage.store.example(example) for example in content], weights, observe_all=False))
        nll_sum = (engine.forward(row)[:, NLL] * row.target_weights).sum()
        engine.backward(nll_sum, num_targets, ends_step=index == len(contents) - 1)
    return engine.take_gradient()
