"""Loading a model folder for training: into partitions, with adapters."""

from contextlib import suppress
from typing import TYPE_CHECKING

import torch
import transformers

from sftkey_dist.config.model import PACKED_ATTENTION
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.models.shape import decoder_layers
from sftkey_dist.training.forward.attention import PACKED, register_packed_attention
from sftkey_dist.training.forward.chunked_mlp import compute_mlps_in_chunks
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.weights.lora import add_adapters

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_partitioned(job: StageJob) -> "PreTrainedModel | PeftModel":
    """The model that a stage starts from, each parameter partitioned as it is created, with its adapters if any.

    An `HfDeepSpeedConfig` must be in force: without it, transformers loads the model whole on every rank.

    Raises:
        ModelError: the folder cannot be loaded, lacks weights of its architecture, or takes no such adapters.
    """
    register_packed_attention()
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            job.model_dir,
            dtype=getattr(torch, job.precision),
            attn_implementation=PACKED if job.attention in PACKED_ATTENTION else job.attention,
            trust_remote_code=job.trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{job.model_dir}: cannot load the model: {loading_problem(error)}") from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelError(
            f"{job.model_dir}: {len(loading['missing_keys'])} weights of the architecture are not in the folder, such "
            f"as {missing}; they would start from random values"
        )
    if not all(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise AssertionError("the model was loaded whole on every rank instead of partitioned")
    _save_memory(model, job.training)
    if job.training.lora is None:
        return model
    transformers.set_seed(job.seed)
    return add_adapters(model, job.training.lora)


def _save_memory(model: "PreTrainedModel", training: TrainingConfig) -> None:
    """Recompute what need not be kept for the backward pass."""
    if training.gradient_checkpointing:
        # On a CPU, transformers would ask for memory that only an accelerator's driver can provide.
        offload = {"offload": True} if training.offload_activations and torch.cuda.is_available() else {}
        # transformers 5.23 has renamed it, and warns of the name before.
        newer = getattr(model, "activation_checkpointing_enable", None)
        (newer or model.gradient_checkpointing_enable)({"use_reentrant": False}, **offload)
    if training.mlp_chunk_tokens is not None:
        compute_mlps_in_chunks(model, training.mlp_chunk_tokens)


def layer_classes(model: "PreTrainedModel") -> list[type]:
    """Classes of the decoder's layers; none for an architecture without one list of layers."""
    with suppress(ModelError):
        return list({type(layer) for layer in decoder_layers(model)})
    return []
