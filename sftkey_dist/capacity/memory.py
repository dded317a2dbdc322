"""Estimates the memory of one rank under ZeRO-3, part by part.

The bytes of a parameter follow from the engine's settings (`training/engine/deepspeed_config.py`): weights in compute
precision, and float32 master weights, two moments and accumulated gradients, all partitioned. Gathered weights,
activations, logits and communication buckets are not partitioned.
"""

from dataclasses import dataclass

from sftkey_dist.capacity.hardware import GIB, Accelerator
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.checkpoint import CHECKPOINT_BYTES
from sftkey_dist.training.engine.deepspeed_config import GATHERED_AHEAD_ELEMENTS, GATHERED_FOR_GOOD_ELEMENTS

_LOGIT_COPIES = 3
"""Float32 logits, their softmax and their gradient."""
_PREFIX_COPIES = 2
"""Keys and values are held once alone, and once joined with those of the tokens after the prefix."""
_MARGIN = 0.07
"""Share of the memory that an accelerator's caching allocator cannot use."""


@dataclass(frozen=True)
class GuardCopy:
    """The whole model with which a guard generates on every rank.

    Attributes:
        weight_bytes: bytes of a weight in the exported precision.
        tokens: maximum number of tokens with keys and values, in prompts and responses that are generated together.
    """

    weight_bytes: int
    tokens: int


@dataclass(frozen=True)
class Memory:
    """Memory of one rank, in GiB by part."""

    parts: dict[str, float]

    @property
    def total_gib(self) -> float:
        """The sum of all parts."""
        return sum(self.parts.values())


def estimate_memory(
    size: ModelSize,
    training: TrainingConfig,
    device: Accelerator,
    ranks: int,
    row_tokens: int,
    kept_positions: int,
    prefix_tokens: int = 0,
) -> Memory:
    """Memory of a rank while a stage trains.

    Args:
        size: sizes of the model.
        training: settings of the training.
        device: accelerator of the rank.
        ranks: number of ranks that share the model.
        row_tokens: maximum number of tokens that the backward pass of a rank covers: of a packed row, or of its part.
        kept_positions: maximum number of positions with logits among them.
        prefix_tokens: maximum number of tokens of a row through which no gradient passes.
    """
    parts = _state(size, training, device, ranks) | {
        "weights, gathered": _gathered(size, training, device, ranks),
        "expert weights, held for the backward pass": _held_weights(size, training, device, ranks),
        "gradient reduction buffers": _travelling_gradients(size, training, device),
        "activations": _activations(size, training, device, row_tokens),
        "keys and values of what comes before": _PREFIX_COPIES * prefix_tokens * size.key_value_bytes,
        "logits": min(kept_positions, training.logit_chunk_positions or kept_positions)
        * (size.vocab_size * 4 * _LOGIT_COPIES),
    }
    return _with_margin(parts, device)


def guard_memory(
    size: ModelSize, training: TrainingConfig, device: Accelerator, ranks: int, guard: GuardCopy
) -> Memory:
    """Memory of a rank while the guard of a stage generates. Of the last step only the state and its buffer are left.

    Args:
        size: sizes of the model.
        training: settings of the training.
        device: accelerator of the rank.
        ranks: number of ranks that share the model.
        guard: the copy of the model.
    """
    stays = ranks > 1 and stays_gathered(size, training, device)
    parts = _state(size, training, device, ranks) | {
        "weights, gathered": size.held * device.compute_bytes if stays else 0.0,
        "gradient reduction buffers": reduced_bytes(training) * training.zero.reduce_bucket_elements,
        "guard's copy of the model": size.parameters * guard.weight_bytes,
        "guard's keys and values": guard.tokens * size.key_value_bytes * guard.weight_bytes / device.compute_bytes,
    }
    return _with_margin(parts, device)


def _state(size: ModelSize, training: TrainingConfig, device: Accelerator, ranks: int) -> dict[str, float]:
    """Bytes that a rank holds between steps. Frozen weights have no master weights, moments or gradients."""
    trained, offloaded = size.trained / ranks, training.zero.offload != "none"
    weights = size.held / ranks * device.compute_bytes
    return {
        "process": device.process_gib * GIB,
        "weights, partitioned": 0.0 if training.zero.offload_weights else weights,
        "weights, second copy in the node": _second_copy(size, training, device),
        "master weights and moments": 0.0 if offloaded else trained * CHECKPOINT_BYTES,
        "gradients": 0.0 if offloaded else trained * 4,
    }


def _with_margin(parts: dict[str, float], device: Accelerator) -> Memory:
    margin = _MARGIN * (sum(parts.values()) - parts["process"]) if device.overlaps_communication else 0.0
    every = parts | {"allocator's margin": margin}
    return Memory({name: value / GIB for name, value in every.items() if value})


def stays_gathered(size: ModelSize, training: TrainingConfig, device: Accelerator) -> bool:
    """Whether every rank holds the whole model between steps."""
    return size.held * device.compute_bytes <= training.zero.max_gathered_gib * GIB


def reuse_elements(training: TrainingConfig, device: Accelerator) -> int:
    """DeepSpeed's reuse distance in elements: a weight that is needed again within it stays gathered."""
    return int(training.zero.max_gathered_gib * GIB) // device.compute_bytes


def ahead_elements(size: ModelSize, training: TrainingConfig, device: Accelerator) -> int:
    """DeepSpeed's prefetch bucket: number of elements that are gathered at a time, ahead of their use."""
    return min(reuse_elements(training, device), max(GATHERED_AHEAD_ELEMENTS, size.largest_matrix))


def is_gathered_for_good(elements: int, training: TrainingConfig, device: Accelerator) -> bool:
    """Whether a weight of this size stays on every rank although the model does not."""
    return elements <= min(reuse_elements(training, device), GATHERED_FOR_GOOD_ELEMENTS)


def live_elements(size: ModelSize, training: TrainingConfig, device: Accelerator) -> int:
    """DeepSpeed's ``max_live_parameters``: number of gathered elements at which gathering ahead stops."""
    return reuse_elements(training, device) + 2 * ahead_elements(size, training, device)


def reduced_bytes(training: TrainingConfig) -> int:
    """Bytes of an element of a gradient while it is reduced."""
    return {"float32": 4, "bfloat16": 2}[training.zero.reduce_precision]


def _gathered(size: ModelSize, training: TrainingConfig, device: Accelerator, ranks: int) -> float:
    """Bytes of gathered weights: up to the bound for gathering ahead, and the largest module in addition to it."""
    if ranks == 1 and not training.zero.offload_weights:
        return 0.0  # the part of a single rank is the whole weight
    if stays_gathered(size, training, device):
        return size.held * device.compute_bytes
    live = live_elements(size, training, device) + size.largest_gathered
    return min(size.held, live) * device.compute_bytes


def _held_weights(size: ModelSize, training: TrainingConfig, device: Accelerator, ranks: int) -> float:
    """Bytes of expert weights that autograd keeps although ZeRO-3 has released them.

    transformers multiplies with a transposed view of a stack of experts, and autograd keeps the view's storage. A layer
    that is recomputed keeps it no longer than the layer takes.
    """
    if ranks == 1 or training.gradient_checkpointing or stays_gathered(size, training, device):
        return 0.0
    return size.held_weight_bytes


def _second_copy(size: ModelSize, training: TrainingConfig, device: Accelerator) -> float:
    """Bytes of hpZ's secondary partition. DeepSpeed makes none of parameters that stay gathered."""
    ranks = training.zero.secondary_partition_ranks
    if ranks == 1 or stays_gathered(size, training, device):
        return 0.0
    return size.parameters * device.compute_bytes / ranks


def _travelling_gradients(size: ModelSize, training: TrainingConfig, device: Accelerator) -> float:
    """Bytes of the buffer in which gradients are collected, and of the flat copy that is reduced.

    A gradient that does not fit into the buffer is reduced alone. Then the gradient itself and its cast, if it needs
    one, are held too (deepspeed 0.19, runtime/zero/stage3.py: ``__add_grad_to_ipg_bucket``, ``__avg_scatter_grads``).
    """
    buffer, largest, width = training.zero.reduce_bucket_elements, size.largest_trained, reduced_bytes(training)
    flat_copy = min(size.trained, max(buffer, largest))
    cast = width if width != device.compute_bytes else 0
    alone = largest * (device.compute_bytes + cast) if largest > buffer else 0
    return width * (buffer + flat_copy) + alone


def _activations(size: ModelSize, training: TrainingConfig, device: Accelerator, row_tokens: int) -> float:
    """Bytes that the backward pass needs of every layer, and of one feed-forward block where they are chunked.

    With recomputation: all inputs, unless the host holds them, and one layer in full.
    """
    chunk = min(row_tokens, training.mlp_chunk_tokens or 0) * size.chunked_bytes / size.num_layers
    if training.gradient_checkpointing:
        inputs = 0 if training.offload_activations else input_bytes(size, device)
        return row_tokens * (inputs + size.activation_bytes / size.num_layers) + chunk
    return row_tokens * size.activation_bytes + chunk


def input_bytes(size: ModelSize, device: Accelerator) -> int:
    """Bytes per token of the inputs of all layers."""
    return size.num_layers * size.hidden_size * device.compute_bytes
