"""Seconds of an optimizer step: what is computed, what travels, and what of that cannot be hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkey_dist.capacity.hardware import Cluster
from sftkey_dist.capacity.memory import stays_gathered
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.config.training import TrainingConfig

_RECOMPUTED = 4 / 3
"""Forward passes count a third; with gradient checkpointing there is one more."""
_NETWORK_EFFICIENCY = 0.8
"""Share of a link that collectives reach."""
_OPTIMIZER_BYTES = 36
"""Read and written for a parameter's update: float32 gradient, weight and moments, and the compute copy."""
_HOST_GB_PER_SECOND = 25.0
"""Over PCIe, for state that is offloaded."""
_GRADIENT_BYTES = 4
"""Gradients are reduced in float32."""


@dataclass(frozen=True)
class Seconds:
    """Of a step, on the critical path.

    Attributes:
        compute: the slowest rank of each micro-batch, added up.
        balanced: the same if all ranks had equal loads.
        communication: that nothing hides.
        optimizer: the update.
    """

    compute: float
    balanced: float
    communication: float
    optimizer: float

    @property
    def total(self) -> float:
        """Of the step."""
        return self.compute + self.communication + self.optimizer


@dataclass(frozen=True)
class Rows:
    """A step's packed rows, each number an array [ranks, micro-batches].

    Attributes:
        tokens: in the row.
        pairs: Σ L² over its examples.
        logits: positions with logits.
        observed: positions with logits in a step that measures every segment.
    """

    tokens: np.ndarray
    pairs: np.ndarray
    logits: np.ndarray
    observed: np.ndarray


def step_seconds(size: ModelSize, training: TrainingConfig, cluster: Cluster, steps: Sequence[Rows]) -> Seconds:
    """Means over steps.

    Args:
        size: of the model.
        training: how the stage runs.
        cluster: where.
        steps: rows of each step, from the sampler's plans for as many ranks.
    """
    device = cluster.accelerator
    rate = device.peak_tflops * 1e12 * device.efficiency
    compute, balanced, hidden_under = [], [], []
    for rows in steps:
        seconds = _flops(size, rows) * (_RECOMPUTED if training.gradient_checkpointing else 1.0) / rate
        slowest = seconds.max(axis=0)
        compute.append(slowest.sum())
        balanced.append(seconds.mean(axis=0).sum())
        hidden_under.append(slowest)
    travelling = [_exposed(size, training, cluster, slowest) for slowest in hidden_under]
    return Seconds(
        compute=float(np.mean(compute)),
        balanced=float(np.mean(balanced)),
        communication=float(np.mean(travelling)),
        optimizer=size.trained / cluster.ranks * _OPTIMIZER_BYTES / _optimizer_bandwidth(training, cluster),
    )


@dataclass(frozen=True)
class Traffic:
    """Bytes that a rank receives.

    Attributes:
        each: in every micro-batch, from all ranks.
        within: in every micro-batch, from ranks of its node.
        once: in every step, from all ranks.
    """

    each: float
    within: float
    once: float


def traffic_of(size: ModelSize, training: TrainingConfig, cluster: Cluster) -> Traffic:
    """Weights for the forward and the backward pass, and reduced gradients of what is trained."""
    device, others = cluster.accelerator, (cluster.ranks - 1) / cluster.ranks
    weights, gradients = size.parameters * device.compute_bytes, size.trained * _GRADIENT_BYTES
    if stays_gathered(size, training, device):
        return Traffic(others * gradients, 0.0, others * size.trained * device.compute_bytes)
    neighbours = training.zero.secondary_partition_ranks
    if neighbours == 1:
        return Traffic(others * (2 * weights + gradients), 0.0, 0.0)
    return Traffic(others * (weights + gradients), (neighbours - 1) / neighbours * weights, 0.0)


def _optimizer_bandwidth(training: TrainingConfig, cluster: Cluster) -> float:
    """Bytes a second: the device's own memory, or the way to the host."""
    gb_per_second = cluster.accelerator.memory_gb_per_second if training.zero.offload == "none" else _HOST_GB_PER_SECOND
    return gb_per_second * 1e9


def _exposed(size: ModelSize, training: TrainingConfig, cluster: Cluster, compute: np.ndarray) -> float:
    """Collectives run beside computation where the device can; what takes longer than it is waited for."""
    rate = cluster.bandwidth_bytes_per_second * _NETWORK_EFFICIENCY
    link = cluster.accelerator.link_gb_per_second * 1e9 * _NETWORK_EFFICIENCY
    traffic = traffic_of(size, training, cluster)
    each, once = traffic.each / rate + traffic.within / link, traffic.once / rate
    if not cluster.accelerator.overlaps_communication:
        return each * len(compute) + once
    return float(np.maximum(each - compute, 0.0).sum()) + once


def _flops(size: ModelSize, rows: Rows) -> np.ndarray:
    """Forward and backward, [ranks, micro-batches]; see `ModelFlops.of_step`. Frozen weights need no gradient."""
    flops = size.flops
    products = float(flops.layer_weights) * rows.tokens + float(flops.logit_weights) * rows.logits
    total: np.ndarray = (4 if size.is_frozen else 6) * products + 6 * float(flops.attention_width) * rows.pairs
    return total
