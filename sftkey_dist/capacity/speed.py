"""Seconds of an optimizer step: what is computed, what travels, and what of that cannot be hidden."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftkey_dist.capacity.hardware import Accelerator, Cluster
from sftkey_dist.capacity.memory import reduced_bytes
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.capacity.traffic import Flow, traffic_of
from sftkey_dist.config.training import TrainingConfig

_OPTIMIZER_BYTES = 36
"""Read and written for a parameter's update: float32 gradient, weight and moments, and the compute copy."""
_HOST_GB_PER_SECOND = 25.0
"""Over PCIe, for state that is offloaded."""
_GRADIENT_COPIES = 2
"""A micro-batch's gradients are copied to a buffer and from there to a flat tensor, as they are reduced."""
_LOGIT_BYTES = 7 * 4
"""Read and written for a logit in float32, in seven passes: softmax, the most likely token, and the gradient."""


@dataclass(frozen=True)
class Seconds:
    """Of a step, on the critical path.

    Attributes:
        compute: the slowest rank of each micro-batch, added up.
        balanced: the same if all ranks had equal loads.
        communication: that nothing hides, and what the rest of it takes from computation.
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
    compute, balanced, hidden_under = [], [], []
    for rows in steps:
        seconds = _row_seconds(size, training, cluster.accelerator, rows)
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


def _optimizer_bandwidth(training: TrainingConfig, cluster: Cluster) -> float:
    """Bytes a second: the device's own memory, or the way to the host."""
    gb_per_second = cluster.accelerator.memory_gb_per_second if training.zero.offload == "none" else _HOST_GB_PER_SECOND
    return gb_per_second * 1e9


def _exposed(size: ModelSize, training: TrainingConfig, cluster: Cluster, compute: np.ndarray) -> float:
    """Collectives run beside computation where the device can; what takes longer than it is waited for.

    Bandwidth and latency alike. Hidden time is not free: computation has fewer multiprocessors meanwhile. At a
    micro-batch's ends there is nothing to run beside.
    """
    device = cluster.accelerator
    traffic = traffic_of(size, training, cluster)
    node = replace(cluster, nodes=1, gpus_per_node=training.zero.secondary_partition_ranks)
    beside = _ring_seconds(cluster, traffic.beside) + _ring_seconds(node, traffic.within)
    ends, once = _ring_seconds(cluster, traffic.ends), _ring_seconds(cluster, traffic.once)
    hidden = compute if device.overlaps_communication else np.zeros_like(compute)
    waited = np.maximum(beside - hidden, device.collective_share * beside)
    return float((waited + ends).sum()) + once


def _ring_seconds(cluster: Cluster, flow: Flow) -> float:
    return cluster.ring_seconds(flow.received_bytes, flow.collectives)


def _row_seconds(size: ModelSize, training: TrainingConfig, device: Accelerator, rows: Rows) -> np.ndarray:
    """Forward and backward, [ranks, micro-batches]: one after another what the device's units do and its memory.

    A forward pass is 2 FLOPs for each weight and token, the backward pass twice that, or once where weights are frozen
    and have no gradient; see `ModelFlops.of_pass`.
    """
    forward_passes = 2 if training.gradient_checkpointing else 1
    backward_passes = 1 if size.is_frozen else 2
    layers = float(size.flops.layer_weights) * rows.tokens * (forward_passes + backward_passes)
    head_passes = (2 if training.logit_chunk_positions else 1) + backward_passes
    head = float(size.flops.logit_weights) * rows.logits * head_passes
    attention = float(size.flops.attention_width) * rows.pairs * (forward_passes + 2)
    flops = 2 * ((layers + head) / device.product_efficiency + attention / device.attention_efficiency)
    layer_bytes = size.moved_bytes * rows.tokens * (forward_passes + 2) / 3
    logit_bytes = float(_LOGIT_BYTES * size.vocab_size) * rows.logits
    gradient_bytes = size.trained * (device.compute_bytes + 2 * _GRADIENT_COPIES * reduced_bytes(training))
    moved = layer_bytes + logit_bytes + gradient_bytes
    seconds: np.ndarray = flops / (device.peak_tflops * 1e12) + moved / (device.memory_gb_per_second * 1e9)
    return seconds
