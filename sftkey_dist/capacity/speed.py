"""Seconds of an optimizer step: what is computed, what travels, and what of that cannot be hidden."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sftkey_dist.capacity.hardware import Accelerator, Cluster
from sftkey_dist.capacity.memory import reduced_bytes
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.capacity.traffic import Flow, Traffic, traffic_of
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.flops import Positions

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


@dataclass(frozen=True, eq=False)
class Rows:
    """A step's packed rows, each number an array [ranks, micro-batches].

    Attributes:
        tokens: in the row.
        pairs: Σ L² over its examples.
        logits: positions with logits.
        observed: positions with logits in a step that measures every segment.
        prefix_tokens: of those in the row, tokens that no gradient passes through.
        prefix_pairs: Σ P² over those of each example.
    """

    tokens: np.ndarray
    pairs: np.ndarray
    logits: np.ndarray
    observed: np.ndarray
    prefix_tokens: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=np.int64))
    prefix_pairs: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=np.int64))

    @property
    def whole(self) -> Positions:
        """What the forward pass runs over."""
        return Positions(self.tokens, self.pairs, self.logits)

    @property
    def rest(self) -> Positions:
        """What the backward pass runs over."""
        return self.whole.behind(Positions(self.prefix_tokens, self.prefix_pairs, 0))


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
    traffic = traffic_of(size, training, cluster, stops_prefix=any(rows.prefix_tokens.any() for rows in steps))
    travelling = [_exposed(training, cluster, traffic, slowest) for slowest in hidden_under]
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


def _exposed(training: TrainingConfig, cluster: Cluster, traffic: Traffic, compute: np.ndarray) -> float:
    """Collectives run beside computation where the device can; what takes longer than it is waited for.

    Bandwidth and latency alike. Hidden time is not free: computation has fewer multiprocessors meanwhile. At a
    micro-batch's ends there is nothing to run beside.
    """
    device = cluster.accelerator
    node = replace(cluster, nodes=1, gpus_per_node=training.zero.secondary_partition_ranks)
    beside = _ring_seconds(cluster, traffic.beside) + _ring_seconds(node, traffic.within)
    ends, once = _ring_seconds(cluster, traffic.ends), _ring_seconds(cluster, traffic.once)
    hidden = compute if device.overlaps_communication else np.zeros_like(compute)
    waited = np.maximum(beside - hidden, device.collective_share * beside)
    return float((waited + ends).sum()) + once


def _ring_seconds(cluster: Cluster, flow: Flow) -> float:
    return cluster.ring_seconds(flow.received_bytes, flow.collectives)


def _row_seconds(size: ModelSize, training: TrainingConfig, device: Accelerator, rows: Rows) -> np.ndarray:
    """Forward and backward, [ranks, micro-batches]: one after another what the device's units do and its memory."""
    again = training.gradient_checkpointing
    work = size.flops.forward(rows.whole) + size.flops.backward(rows.rest)
    work += size.flops.recomputed(rows.whole, layers=again, logits=training.logit_chunk_positions is not None)
    flops = work.products / device.product_efficiency + work.attention / device.attention_efficiency
    layer_bytes = size.moved_bytes * ((2 if again else 1) * rows.tokens + 2 * rows.rest.tokens) / 3
    logit_bytes = float(_LOGIT_BYTES * size.vocab_size) * rows.logits
    gradient_bytes = size.trained * (device.compute_bytes + 2 * _GRADIENT_COPIES * reduced_bytes(training))
    moved = layer_bytes + logit_bytes + gradient_bytes
    seconds: np.ndarray = flops / (device.peak_tflops * 1e12) + moved / (device.memory_gb_per_second * 1e9)
    return seconds
