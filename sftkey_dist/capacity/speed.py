"""Estimates the seconds of an optimizer step: computation, and the communication that it does not hide."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sftkey_dist.capacity.hardware import Cluster
from sftkey_dist.capacity.memory import input_bytes, reduced_bytes, stays_gathered
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.capacity.traffic import Flow, Traffic
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.forward.flops import Positions

_OPTIMIZER_BYTES = 36
"""Bytes that the update of a parameter reads and writes: float32 gradient, weight, moments, and the compute copy."""
_HOST_GB_PER_SECOND = 25.0
"""Bandwidth over PCIe, for offloaded state, weights and activations."""
_GRADIENT_COPIES = 2
"""The gradients of a micro-batch are copied to a buffer, and from there to the flat tensor that is reduced."""
_LOGIT_BYTES = 7 * 4
"""Bytes that are read and written for a float32 logit, in seven passes: softmax, most likely token and gradient."""


@dataclass(frozen=True)
class Seconds:
    """Seconds of a step, on the critical path.

    Attributes:
        compute: the sum over micro-batches of the slowest rank's time.
        balanced: the same sum if all ranks had equal loads.
        communication: communication that is not hidden, and the time that hidden communication takes from computation.
        optimizer: the update of the weights.
    """

    compute: float
    balanced: float
    communication: float
    optimizer: float

    @property
    def total(self) -> float:
        """The whole step."""
        return self.compute + self.communication + self.optimizer


@dataclass(frozen=True, eq=False)
class Rows:
    """The packed rows of a step. Each attribute is an array [ranks, micro-batches].

    Attributes:
        tokens: tokens of the row.
        pairs: `Positions.pairs` of its examples.
        logits: positions with logits.
        observed: positions with logits, in a step that measures every segment.
        prefix_tokens: tokens of the row through which no gradient passes.
        prefix_pairs: `Positions.pairs` of these prefixes.
    """

    tokens: np.ndarray
    pairs: np.ndarray
    logits: np.ndarray
    observed: np.ndarray
    prefix_tokens: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=np.int64))
    prefix_pairs: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=np.int64))

    def part(self, parts: int) -> "Rows":
        """What the busiest of the ranks that share a row computes of it; no prefix of such a row is stopped.

        Tokens and heads are shared evenly. Positions with logits stay on the rank that holds them, and those of an
        answer follow each other: at worst a rank has logits at all of its tokens.
        """
        if parts == 1:
            return self
        tokens = -(-self.tokens // parts)
        logits, observed = np.minimum(self.logits, tokens), np.minimum(self.observed, tokens)
        return Rows(tokens, -(-self.pairs // parts), logits, observed)

    def repeated(self, passes: int) -> "Rows":
        """The same rows in so many passes, each with its share of the logits; no prefix of such a row is stopped."""
        if passes == 1:
            return self
        logits = -(-self.logits // passes)
        return Rows(*(np.tile(each, (1, passes)) for each in (self.tokens, self.pairs, logits, self.observed)))

    @property
    def whole(self) -> Positions:
        """The positions that the forward pass covers."""
        return Positions(self.tokens, self.pairs, self.logits)

    @property
    def without_logits(self) -> Positions:
        """The same, but for the output projection."""
        return Positions(self.tokens, self.pairs, 0)

    @property
    def rest(self) -> Positions:
        """The positions that the backward pass covers."""
        return self.whole.without_prefix(Positions(self.prefix_tokens, self.prefix_pairs, 0))


def step_seconds(
    size: ModelSize,
    training: TrainingConfig,
    cluster: Cluster,
    steps: Sequence[Rows],
    traffic: Traffic,
    exchanges: Sequence[Flow],
    *,
    extra_forward_passes: int = 0,
) -> Seconds:
    """The mean seconds over steps.

    Args:
        size: sizes of the model.
        training: settings of the training.
        cluster: the cluster.
        steps: rows of each step, from the sampler's plans for the cluster's ranks, or the parts of rows that a rank
            computes.
        traffic: collectives of a micro-batch and of a step.
        exchanges: what ranks that share rows send each other in each step.
        extra_forward_passes: number of forward passes of a row, without logits, beside that of the loss.
    """
    compute, balanced, hidden_under = [], [], []
    for rows in steps:
        seconds = _row_seconds(size, training, cluster, rows, extra_forward_passes)
        slowest = seconds.max(axis=0)
        compute.append(slowest.sum())
        balanced.append(seconds.mean(axis=0).sum())
        hidden_under.append(slowest)
    travelling = [_exposed(training, cluster, traffic, slowest) for slowest in hidden_under]
    exchanging = [_exchange_seconds(training, cluster, flow) for flow in exchanges]
    return Seconds(
        compute=float(np.mean(compute)),
        balanced=float(np.mean(balanced)),
        communication=float(np.mean(travelling) + np.mean(exchanging)),
        optimizer=size.trained / cluster.ranks * _OPTIMIZER_BYTES / _optimizer_bandwidth(training, cluster),
    )


def _optimizer_bandwidth(training: TrainingConfig, cluster: Cluster) -> float:
    """Bytes per second of the device's memory or, with offloading, of the connection to the host."""
    gb_per_second = cluster.accelerator.memory_gb_per_second if training.zero.offload == "none" else _HOST_GB_PER_SECOND
    return gb_per_second * 1e9


def _exposed(training: TrainingConfig, cluster: Cluster, traffic: Traffic, compute: np.ndarray) -> float:
    """Seconds of communication on the critical path.

    If the device can, collectives run at the same time as computation, and only the excess is waited for. Hidden
    communication still costs time, because computation has fewer multiprocessors meanwhile. At the start and the end of
    a micro-batch there is no computation to hide it.
    """
    device = cluster.accelerator
    node = replace(cluster, nodes=1, gpus_per_node=training.zero.secondary_partition_ranks)
    beside = _ring_seconds(cluster, traffic.beside) + _ring_seconds(node, traffic.within)
    ends, once = _ring_seconds(cluster, traffic.ends), _ring_seconds(cluster, traffic.once)
    hidden = compute if device.overlaps_communication else np.zeros_like(compute)
    waited = np.maximum(beside - hidden, device.collective_share * beside)
    return float((waited + ends).sum()) + once


def _exchange_seconds(training: TrainingConfig, cluster: Cluster, flow: Flow) -> float:
    """Seconds in which ranks that share a row wait for each other's tokens, at the bandwidth of what connects them."""
    sharing = training.sequence_parallel_ranks
    # Consecutive groups stay within nodes only if their size divides that of a node.
    is_within = cluster.gpus_per_node % sharing == 0
    nodes = 1 if is_within else max(2, -(-sharing // cluster.gpus_per_node))
    group = replace(cluster, nodes=nodes, gpus_per_node=sharing if is_within else -(-sharing // nodes))
    # Unlike a ring, where data enter a node once, an exchange gives every rank of a node data of its own.
    received = flow.received_bytes * (group.gpus_per_node if nodes > 1 else 1)
    return group.ring_seconds(received, flow.collectives)


def _ring_seconds(cluster: Cluster, flow: Flow) -> float:
    return cluster.ring_seconds(flow.received_bytes, flow.collectives)


def _row_seconds(
    size: ModelSize, training: TrainingConfig, cluster: Cluster, rows: Rows, extra_forward_passes: int
) -> np.ndarray:
    """Seconds of the forward and backward pass, [ranks, micro-batches]: the sum of operations and memory traffic."""
    device = cluster.accelerator
    again = training.gradient_checkpointing
    work = size.flops.forward(rows.whole) + size.flops.backward(rows.rest)
    work = sum([size.flops.forward(rows.without_logits)] * extra_forward_passes, work)
    work += size.flops.recomputed(rows.whole, layers=again, logits=training.logit_chunk_positions is not None)
    work += size.flops.of_weights(size.chunked_share, rows.whole)
    flops = work.products / device.product_efficiency + work.attention / device.attention_efficiency
    forward_passes = (2 if again else 1) + extra_forward_passes
    layer_bytes = size.moved_bytes * (forward_passes * rows.tokens + 2 * rows.rest.tokens) / 3
    logit_bytes = float(_LOGIT_BYTES * size.vocab_size) * rows.logits
    gradient_bytes = size.trained * (device.compute_bytes + 2 * _GRADIENT_COPIES * reduced_bytes(training))
    of_forward, of_backward = size.score_bytes
    score_bytes = of_forward * forward_passes * rows.whole.pairs + of_backward * rows.rest.pairs
    moved = layer_bytes + logit_bytes + gradient_bytes + score_bytes
    inputs = 2 * input_bytes(size, device) * rows.tokens if training.offload_activations else 0
    copied = inputs + _weight_bytes_from_host(size, training, cluster, 2 + extra_forward_passes)
    seconds: np.ndarray = (
        flops / (device.peak_tflops * 1e12)
        + moved / (device.memory_gb_per_second * 1e9)
        + copied / (_HOST_GB_PER_SECOND * 1e9)
    )
    return seconds


def _weight_bytes_from_host(size: ModelSize, training: TrainingConfig, cluster: Cluster, passes: int) -> float:
    """Bytes of its part of the weights that a rank copies from the host in a micro-batch, once for each pass."""
    if not training.zero.offload_weights or stays_gathered(size, training, cluster.accelerator):
        return 0.0
    return passes * size.held / cluster.ranks * cluster.accelerator.compute_bytes
