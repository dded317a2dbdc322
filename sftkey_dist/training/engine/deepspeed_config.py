"""DeepSpeed's configuration, from what a stage is told; DeepSpeed itself is not needed for it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from sftkey_dist.models.shape import count_parameters, shape_of
from sftkey_dist.training.job import StageSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GATHERED_FOR_GOOD_ELEMENTS = 100_000
"""Norms and biases of up to this size are not worth gathering every time (deepspeed's default)."""
GATHERED_AHEAD_ELEMENTS = 50_000_000
"""Gathered while the layers before are computed (deepspeed's default); more where a layer has a larger matrix."""


@dataclass(frozen=True)
class WeightSizes:
    """Sizes of a model's weights in compute precision.

    Attributes:
        total_bytes: bytes of all weights.
        largest_matrix: elements of the largest matrix in a layer.
    """

    total_bytes: int
    largest_matrix: int = 0

    @classmethod
    def expected(cls, model_dir: Path, precision: Literal["float32", "bfloat16"]) -> "WeightSizes":
        """Sizes of a folder's model before it is loaded; the largest matrix is not known yet."""
        return cls(count_parameters(model_dir) * getattr(torch, precision).itemsize)

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "WeightSizes":
        """Sizes of a loaded model, whether its weights are partitioned or not."""
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        outside = {id(layer.weight) for layer in ends if layer is not None}
        sizes = {id(p): math.prod(shape_of(p)) for p in model.parameters()}
        total = sum(sizes[id(p)] * p.element_size() for p in model.parameters())
        return cls(total, max((size for place, size in sizes.items() if place not in outside), default=0))


def deepspeed_config(settings: StageSettings, sizes: WeightSizes, world_size: int) -> dict[str, object]:
    """The DeepSpeed configuration: ZeRO stage 3, float32 accumulation in every precision.

    Args:
        settings: what the stage is told.
        sizes: of its model.
        world_size: number of ranks.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # DeepSpeed would clip the updates that Muon makes of the gradient; see engine/optimizer.py.
        "gradient_clipping": 0.0 if settings.stage.optimization.muon else settings.stage.optimization.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _zero_config(settings, sizes, world_size),
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": settings.precision == "bfloat16"},
        # Accumulating 64 micro-batches in bfloat16 is off by 8e-3; in float32 by 6e-9.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": {"float32": "fp32", "bfloat16": "bf16"}[settings.training.zero.reduce_precision],
        "steps_per_print": 10**9,
        # They make the host wait for the device in every micro-batch; steps are timed by `StepTimer`.
        "timers": {"throughput": {"enabled": False}},
    }


def _zero_config(settings: StageSettings, sizes: WeightSizes, world_size: int) -> dict[str, object]:
    zero = settings.training.zero
    config: dict[str, object] = {
        "stage": 3,
        "reduce_bucket_size": zero.reduce_bucket_elements,
        "sub_group_size": zero.sub_group_elements,
        "reduce_scatter": settings.stage.optimization.muon is None,  # with Muon, deepspeed 0.19 reduces to all ranks
        **_gathering_config(settings, sizes, world_size),
    }
    if zero.secondary_partition_ranks > 1:
        config["zero_hpz_partition_size"] = zero.secondary_partition_ranks
    if zero.offload != "none":
        place: dict[str, object] = {"device": zero.offload, "pin_memory": torch.cuda.is_available()}
        place |= {"nvme_path": str(zero.nvme_path)} if zero.nvme_path else {}
        config["offload_optimizer"] = place
        if zero.offload_weights:
            config["offload_param"] = place
    return config


def _gathering_config(settings: StageSettings, sizes: WeightSizes, world_size: int) -> dict[str, object]:
    """How much of the model each rank holds whole at a time."""
    gathered_bytes = int(settings.training.zero.max_gathered_gib * 2**30)
    # The part of a single rank is the whole weight, which is not copied where it is.
    is_whole = world_size == 1 and not settings.training.zero.offload_weights
    if is_whole or sizes.total_bytes <= gathered_bytes:
        return {
            "stage3_param_persistence_threshold": sizes.total_bytes,
            # Its replacement of torch's linear layers, in Python, keeps no gathered weight alive; here all are kept.
            "memory_efficient_linear": False,
        }
    gathered_elements = gathered_bytes // getattr(torch, settings.precision).itemsize
    ahead = min(gathered_elements, max(GATHERED_AHEAD_ELEMENTS, sizes.largest_matrix))
    return {
        "stage3_max_reuse_distance": gathered_elements,
        "stage3_param_persistence_threshold": min(gathered_elements, GATHERED_FOR_GOOD_ELEMENTS),
        "stage3_prefetch_bucket_size": ahead,
        # deepspeed gathers ahead only below this bound (partitioned_param_coordinator.py, fetch_sub_module): with its
        # default of 1e9, keeping more than that gathered would end all gathering ahead.
        "stage3_max_live_parameters": gathered_elements + 2 * ahead,
    }
