"""Estimates the traffic between ranks in a step: bytes, and the number of collectives.

How DeepSpeed 0.19 gathers is taken from its source (runtime/zero/partitioned_param_coordinator.py) and from the
engine's settings. No collectives were counted on a cluster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from sftkey_dist.capacity.hardware import Accelerator, Cluster
from sftkey_dist.capacity.memory import (
    ahead_elements,
    is_gathered_for_good,
    reduced_bytes,
    reuse_elements,
    stays_gathered,
)
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.config.training import TrainingConfig


@dataclass(frozen=True)
class Flow:
    """Collectives of one kind.

    Attributes:
        received_bytes: bytes that a rank receives in all of them.
        collectives: number of collectives.
    """

    received_bytes: float = 0.0
    collectives: float = 0.0

    def __add__(self, other: "Flow") -> "Flow":
        return Flow(self.received_bytes + other.received_bytes, self.collectives + other.collectives)


@dataclass(frozen=True)
class Traffic:
    """The collectives in which a rank takes part.

    Attributes:
        beside: per micro-batch, at the same time as computation.
        within: the same, but only with ranks of its node.
        ends: per micro-batch, while nothing is computed: before its first layer and after its last gradient.
        once: per step, after the update.
    """

    beside: Flow
    within: Flow
    ends: Flow
    once: Flow

    def received_bytes(self, micro_batches: float) -> float:
        """Bytes that a rank receives in a step of so many micro-batches."""
        each = self.beside.received_bytes + self.within.received_bytes + self.ends.received_bytes
        return each * micro_batches + self.once.received_bytes


def traffic_of(size: ModelSize, training: TrainingConfig, cluster: Cluster, *, forward_passes: int = 1) -> Traffic:
    """The traffic of gathering weights for both passes, and of reducing the gradients of trained weights.

    Args:
        size: sizes of the model.
        training: settings of the training.
        cluster: the cluster.
        forward_passes: number of forward passes of a row: one more over tokens through which no gradient passes, and
            one more to count what routers choose.
    """
    others = (cluster.ranks - 1) / cluster.ranks
    reduced, last_reduced = _reduced(size, training, others)
    updated = _gathered_after_update(size, training, cluster.accelerator, others)
    if stays_gathered(size, training, cluster.accelerator):
        return Traffic(beside=reduced, within=Flow(), ends=last_reduced, once=updated)
    weights = _Gathers(size, training, cluster.accelerator)
    forward, first = (sum([flow] * forward_passes, Flow()) for flow in (weights.forward(others), weights.first(others)))
    neighbours = training.zero.secondary_partition_ranks
    if neighbours == 1:
        beside, within = forward + weights.backward(others), Flow()
    else:
        beside, within = forward, weights.backward((neighbours - 1) / neighbours)
    return Traffic(beside + reduced, within, first + last_reduced, updated)


def exchanged(
    size: ModelSize,
    training: TrainingConfig,
    device: Accelerator,
    tokens: np.ndarray,
    *,
    extra_forward_passes: int = 0,
) -> Flow:
    """What ranks that share a row send each other around the attention of every layer, in a step.

    Before it queries, keys and values, the latter two once for each rank that needs them, and after it what was
    attended; the same in the backward pass, and once more where layers are recomputed.

    Args:
        size: sizes of the model.
        training: settings of the training.
        device: accelerator of the ranks.
        tokens: tokens of the parts of rows, int [ranks, micro-batches].
        extra_forward_passes: number of forward passes beside that of the loss.
    """
    sharing = training.sequence_parallel_ranks
    if sharing == 1:
        return Flow()
    repeats = sharing // math.gcd(sharing, size.num_key_value_heads)
    of_token = 2 * size.flops.attention_width * device.compute_bytes + repeats * size.key_value_bytes
    passes = extra_forward_passes + (3 if training.gradient_checkpointing else 2)
    sent = float(tokens.max(axis=0).sum()) * of_token * (sharing - 1) / sharing
    return Flow(passes * sent, passes * 2 * size.num_layers * tokens.shape[1])


@dataclass(frozen=True)
class _Gathers:
    """The gathers of a micro-batch if weights do not stay gathered. ``others`` is the share that other ranks hold."""

    size: ModelSize
    training: TrainingConfig
    device: Accelerator

    def first(self, others: float) -> Flow:
        """The gather of the input embedding, for which the first layer waits."""
        return Flow(others * self.size.embedding * self.device.compute_bytes, 1)

    def forward(self, others: float) -> Flow:
        """The gathers of the forward pass, except for the input embedding."""
        return self._flow([*self._layers([]), *self._output()], others)

    def backward(self, others: float) -> Flow:
        """The gathers of the backward pass."""
        again = self._gathered_for_both() if self.size.is_frozen and self.training.gradient_checkpointing else []
        return self._flow([*self._output(), *self._layers(again), self.size.embedding], others)

    def _flow(self, collectives: Sequence[int], others: float) -> Flow:
        return Flow(others * sum(collectives) * self.device.compute_bytes, len(collectives))

    def _layers(self, again: list[int]) -> list[int]:
        """Elements of each collective of all layers in a pass.

        A layer is gathered at once: a bucket of it while the layer before is computed, and the rest when it is needed.
        The rest also counts as hidden by computation, because the host is ahead of the device; this was not measured.
        With adapters, modules are gathered one by one. When they reach the bound, DeepSpeed uses the room that is left,
        in up to half as many additional collectives.
        """
        matrices, num_layers = self._matrices(), self.size.num_layers
        bucket = ahead_elements(self.size, self.training, self.device)
        if self.size.is_frozen:
            return _together((matrices + again) * num_layers, bucket, may_exceed=True)
        ahead, *rest = _together(matrices, bucket or sum(matrices), may_exceed=True) or [0]
        return [elements for elements in (ahead, sum(rest)) if elements] * num_layers

    def _output(self) -> list[int]:
        return [self.size.output] if self.size.output else []

    def _matrices(self) -> list[int]:
        """Elements of the weights of a layer that do not stay gathered."""
        return [n for n in self.size.layer_weights if not is_gathered_for_good(n, self.training, self.device)]

    def _gathered_for_both(self) -> list[int]:
        """Weights of a layer that are released after its recomputation, and gathered again for its backward pass.

        Between the two uses of a weight, the weights after it are used twice. A weight that is needed again within the
        reuse distance stays gathered, and DeepSpeed traces recomputation like any other use. A layer that is gathered
        at once is not affected, because transformers recomputes inside its hooks.
        """
        matrices = self._matrices()
        after = [sum(matrices) - so_far for so_far in accumulate(matrices)]
        distance = reuse_elements(self.training, self.device)
        return [n for n, rest in zip(matrices, after, strict=True) if 2 * rest >= distance]


def _reduced(size: ModelSize, training: TrainingConfig, others: float) -> tuple[Flow, Flow]:
    """The reductions of the gradients of a micro-batch, and separately the last one, usually of the input embedding.

    Gradients are reduced together until the bucket is full, in the order in which the backward pass computes them.
    """
    width = others * reduced_bytes(training)
    *rest, last = _together(size.trained_weights[::-1], training.zero.reduce_bucket_elements, may_exceed=False)
    return Flow(width * sum(rest), len(rest)), Flow(width * last, 1)


def _gathered_after_update(size: ModelSize, training: TrainingConfig, device: Accelerator, others: float) -> Flow:
    """The gathers of the new values of weights that stay gathered, each in its own collective.

    (deepspeed 0.19, runtime/zero/stage3.py: ``_post_step``; partition_parameters.py: ``_allgather_params_coalesced``.)
    """
    all_stay = stays_gathered(size, training, device)
    stay = [n for n in size.trained_weights if all_stay or is_gathered_for_good(n, training, device)]
    return Flow(others * sum(stay) * device.compute_bytes, len(stay))


def _together(weights: Sequence[int], bucket: int, *, may_exceed: bool) -> list[int]:
    """Elements of consecutive weights that share a collective.

    With ``may_exceed`` a collective ends with the weight that fills the bucket, and otherwise before the one that
    exceeds it.
    """
    groups: list[int] = []
    for elements in weights:
        if groups and (groups[-1] < bucket if may_exceed else groups[-1] + elements <= bucket):
            groups[-1] += elements
        else:
            groups.append(elements)
    return groups
