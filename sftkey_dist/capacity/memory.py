"""Memory of one rank under ZeRO-3, part by part.

Bytes a parameter follow from the engine's settings (`training/engine.py`): weights in compute precision, and float32
master weights, two moments and accumulated gradients, all partitioned. What is not partitioned is gathered weights,
activations, logits and the buckets that communication uses.
"""

from dataclasses import dataclass

from sftkey_dist.capacity.hardware import GIB, Accelerator
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.checkpoint import CHECKPOINT_BYTES

_LOGIT_COPIES = 3
"""Float32 logits, their softmax and their gradient."""
_MARGIN = 0.07
"""What an accelerator's caching allocator cannot use."""


@dataclass(frozen=True)
class Memory:
    """Of one rank, in GiB by part."""

    parts: dict[str, float]

    @property
    def total_gib(self) -> float:
        """All parts."""
        return sum(self.parts.values())


def estimate_memory(
    size: ModelSize,
    training: TrainingConfig,
    device: Accelerator,
    ranks: int,
    row_tokens: int,
    kept_positions: int,
) -> Memory:
    """
    Args:
        size: of the model.
        training: how the stage runs.
        device: of the rank.
        ranks: number of data-parallel ranks.
        row_tokens: in the longest packed row.
        kept_positions: most positions of a row that logits are computed at.
    """
    share, trained = size.parameters / ranks, size.trained / ranks
    offloaded = training.zero.offload != "none"
    parts = {
        "process": device.process_gib * GIB,
        "weights, partitioned": 0.0 if training.zero.offload_weights else share * device.compute_bytes,
        "weights, second copy in the node": _second_copy(size, training, device),
        "master weights and moments": 0.0 if offloaded else trained * CHECKPOINT_BYTES,
        "gradients": 0.0 if offloaded else trained * 4,
        "weights, gathered": _gathered(size, training, device, ranks),
        "gradients on their way": _travelling_gradients(size, training, device),
        "activations": _activations(size, training, device, row_tokens),
        "logits": min(kept_positions, training.logit_chunk_positions or kept_positions)
        * (size.vocab_size * 4 * _LOGIT_COPIES),
    }
    if device.overlaps_communication:
        parts["allocator's margin"] = _MARGIN * (sum(parts.values()) - parts["process"])
    return Memory({name: value / GIB for name, value in parts.items() if value})


def stays_gathered(size: ModelSize, training: TrainingConfig, device: Accelerator) -> bool:
    """Whether the whole model lies on every rank between steps."""
    return size.parameters * device.compute_bytes <= training.zero.max_gathered_gib * GIB


def _gathered(size: ModelSize, training: TrainingConfig, device: Accelerator, ranks: int) -> float:
    if ranks == 1 or stays_gathered(size, training, device):
        return size.parameters * device.compute_bytes
    kept = max(training.zero.max_gathered_gib * GIB, 2 * size.largest_block * device.compute_bytes)
    return min(size.parameters * device.compute_bytes, kept)


def _second_copy(size: ModelSize, training: TrainingConfig, device: Accelerator) -> float:
    """hpZ's; DeepSpeed makes none of parameters that stay gathered."""
    ranks = training.zero.secondary_partition_ranks
    if ranks == 1 or stays_gathered(size, training, device):
        return 0.0
    return size.parameters * device.compute_bytes / ranks


def _travelling_gradients(size: ModelSize, training: TrainingConfig, device: Accelerator) -> float:
    """A buffer that gradients collect in, always whole, and the flat copy that is reduced, both in float32.

    A gradient that does not fit into the buffer is reduced alone, beside what autograd made and its cast
    (deepspeed 0.19, runtime/zero/stage3.py: ``__add_grad_to_ipg_bucket``, ``__avg_scatter_grads``).
    """
    buffer, largest = training.zero.reduce_bucket_elements, size.largest_weight
    flat_copy = min(size.trained, max(buffer, largest))
    alone = largest * (device.compute_bytes + 4) if largest > buffer else 0
    return 4 * (buffer + flat_copy) + alone


def _activations(size: ModelSize, training: TrainingConfig, device: Accelerator, row_tokens: int) -> float:
    """What the backward pass needs of every layer; recomputed, only its input, and one layer in full."""
    if training.gradient_checkpointing:
        inputs = size.num_layers * size.hidden_size * device.compute_bytes
        return row_tokens * (inputs + size.activation_bytes / size.num_layers)
    return row_tokens * size.activation_bytes
