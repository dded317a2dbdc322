"""What travels between ranks in a step: bytes, and the collectives that carry them.

How DeepSpeed 0.19 gathers is read from its source (runtime/zero/partitioned_param_coordinator.py) and from the engine's
settings; no collectives were counted on a cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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
        received_bytes: by a rank, in all of them.
        collectives: how many.
    """

    received_bytes: float = 0.0
    collectives: float = 0.0

    def __add__(self, other: "Flow") -> "Flow":
        return Flow(self.received_bytes + other.received_bytes, self.collectives + other.collectives)


@dataclass(frozen=True)
class Traffic:
    """What a rank takes part in.

    Attributes:
        beside: in every micro-batch, beside computation.
        within: of the same kind, with ranks of its node alone.
        ends: in every micro-batch, where nothing is computed: before its first layer and after its last gradient.
        once: in every step, after its update.
    """

    beside: Flow
    within: Flow
    ends: Flow
    once: Flow

    def received_bytes(self, micro_batches: float) -> float:
        """In a step of so many."""
        each = self.beside.received_bytes + self.within.received_bytes + self.ends.received_bytes
        return each * micro_batches + self.once.received_bytes


def traffic_of(size: ModelSize, training: TrainingConfig, cluster: Cluster, *, stops_prefix: bool = False) -> Traffic:
    """Weights for the forward and the backward pass, and reduced gradients of what is trained.

    Args:
        size: of the model.
        training: how the stage runs.
        cluster: where.
        stops_prefix: whether the forward pass is two, first over what no gradient passes through.
    """
    others = (cluster.ranks - 1) / cluster.ranks
    reduced, last_reduced = _reduced(size, training, others)
    updated = _gathered_after_update(size, training, cluster.accelerator, others)
    if stays_gathered(size, training, cluster.accelerator):
        return Traffic(beside=reduced, within=Flow(), ends=last_reduced, once=updated)
    weights = _Gathers(size, training, cluster.accelerator)
    forward, first = weights.forward(others), weights.first(others)
    if stops_prefix:
        forward, first = forward + forward, first + first
    neighbours = training.zero.secondary_partition_ranks
    if neighbours == 1:
        beside, within = forward + weights.backward(others), Flow()
    else:
        beside, within = forward, weights.backward((neighbours - 1) / neighbours)
    return Traffic(beside + reduced, within, first + last_reduced, updated)


@dataclass(frozen=True)
class _Gathers:
    """Of a micro-batch, where weights do not stay; each with the share of them that other ranks hold."""

    size: ModelSize
    training: TrainingConfig
    device: Accelerator

    def first(self, others: float) -> Flow:
        """The input embedding, which the first layer waits for."""
        return Flow(others * self.size.embedding * self.device.compute_bytes, 1)

    def forward(self, others: float) -> Flow:
        """All but the input embedding."""
        return self._flow([*self._layers([]), *self._output()], others)

    def backward(self, others: float) -> Flow:
        """All again."""
        again = self._gathered_for_both() if self.size.is_frozen and self.training.gradient_checkpointing else []
        return self._flow([*self._output(), *self._layers(again), self.size.embedding], others)

    def _flow(self, collectives: Sequence[int], others: float) -> Flow:
        return Flow(others * sum(collectives) * self.device.compute_bytes, len(collectives))

    def _layers(self, again: list[int]) -> list[int]:
        """Elements of each collective of all layers in a pass.

        A layer is gathered at once: what fills a bucket while the layer before is computed, and the rest when its turn
        comes. That counts as beside computation too, as the host is ahead of the device; it was not measured. Beside
        adapters, modules are gathered one by one; where that has reached its bound, DeepSpeed takes what room there is,
        in up to half as many more collectives.
        """
        matrices, num_layers = self._matrices(), self.size.num_layers
        bucket = ahead_elements(self.size, self.training, self.device)
        if self.size.is_frozen:
            return _together((matrices + again) * num_layers, bucket, may_pass=True)
        ahead, *rest = _together(matrices, bucket or sum(matrices), may_pass=True) or [0]
        return [elements for elements in (ahead, sum(rest)) if elements] * num_layers

    def _output(self) -> list[int]:
        return [self.size.output] if self.size.output else []

    def _matrices(self) -> list[int]:
        """Weights of a layer that do not stay for good."""
        return [n for n in self.size.layer_weights if not is_gathered_for_good(n, self.training, self.device)]

    def _gathered_for_both(self) -> list[int]:
        """Weights of a layer that recomputing it lets go of before its backward pass, so that they are gathered again.

        Between the two uses of a weight lie those that come after it, twice. What is needed again within the reuse
        distance stays, and DeepSpeed traces the recomputation of modules as it does any other use. A layer that is
        gathered at once has no use in between: transformers recomputes inside of its hooks.
        """
        matrices = self._matrices()
        after = [sum(matrices) - so_far for so_far in accumulate(matrices)]
        distance = reuse_elements(self.training, self.device)
        return [n for n, rest in zip(matrices, after, strict=True) if 2 * rest >= distance]


def _reduced(size: ModelSize, training: TrainingConfig, others: float) -> tuple[Flow, Flow]:
    """Gradients of a micro-batch, and apart from them the last ones, as a rule the input embedding's.

    They are reduced together as far as the bucket holds them, in the order that the backward pass makes them.
    """
    width = others * reduced_bytes(training)
    *rest, last = _together(size.trained_weights[::-1], training.zero.reduce_bucket_elements, may_pass=False)
    return Flow(width * sum(rest), len(rest)), Flow(width * last, 1)


def _gathered_after_update(size: ModelSize, training: TrainingConfig, device: Accelerator, others: float) -> Flow:
    """Weights that stay are gathered with their new values, each in a collective of its own.

    (deepspeed 0.19, runtime/zero/stage3.py: ``_post_step``; partition_parameters.py: ``_allgather_params_coalesced``.)
    """
    all_stay = stays_gathered(size, training, device)
    stay = [n for n in size.trained_weights if all_stay or is_gathered_for_good(n, training, device)]
    return Flow(others * sum(stay) * device.compute_bytes, len(stay))


def _together(weights: Sequence[int], bucket: int, *, may_pass: bool) -> list[int]:
    """Elements that travel together, of weights one after another: until they fill a bucket, or without passing it."""
    groups: list[int] = []
    for elements in weights:
        if groups and (groups[-1] < bucket if may_pass else groups[-1] + elements <= bucket):
            groups[-1] += elements
        else:
            groups.append(elements)
    return groups
