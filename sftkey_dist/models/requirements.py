"""What training requires of a model according to its configuration, before anything is encoded or started."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sftkey_dist.errors import ConfigError, ModelError
from sftkey_dist.models.shape import num_experts, num_positions, read_config, scales_logits
from sftkey_dist.models.vocabulary import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_ALSO_OF_IMAGES = "ForConditionalGeneration"
"""How transformers names classes of models that read images or sounds too; they are exported with other names."""


def require_trainable(folder: Path, trust_remote_code: bool = False) -> None:
    """Check that a model can be trained according to its configuration, before anything is encoded or started.

    Raises:
        ModelError: Its weights are quantized, or no class of transformers loads it as a language model alone.
    """
    config = read_config(folder, trust_remote_code)
    if quantization := getattr(config, "quantization_config", None):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
        raise ModelError(
            f"{folder}: its weights are quantized ({method}) and cannot be trained; use a model in bfloat16, or load "
            f"this one dequantized and save that"
        )
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, "")
    if not name or name.endswith(_ALSO_OF_IMAGES):
        raise ModelError(
            f"{folder}: {type(config).__name__} is not the configuration of a language model alone; save its language "
            f"model as a folder of its own, and train that"
        )


def require_row_per_token(
    folder: Path, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase", used: Collection[int] = ()
) -> None:
    """Check that every token id that can occur has a row in the embeddings.

    Args:
        folder: the model's folder, for the message.
        config: the model's configuration.
        tokenizer: the model's tokenizer.
        used: special tokens that occur. Other special tokens, such as image tokens in a text-only model, need no row.

    Raises:
        ModelError: A token has no row.
    """
    num_rows = int(config.get_text_config().vocab_size)
    unused = special_tokens(tokenizer).keys() - set(used)
    beyond = {i: text for text, i in tokenizer.get_vocab().items() if i >= num_rows and i not in unused}
    if beyond:
        first, last = min(beyond), max(beyond)
        raise ModelError(
            f"{folder}: the embeddings have {num_rows:,} rows (vocab_size in config.json), but the tokenizer has "
            f"{len(beyond):,} tokens beyond them, such as {beyond[first]!r} with id {first}; use the tokenizer that "
            f"the model was trained with, or add rows with model.resize_token_embeddings({last + 1})"
        )


def require_heads_for(folder: Path, config: "PreTrainedConfig", sequence_parallel_ranks: int) -> None:
    """Check that ranks which share a row can share its attention heads.

    Raises:
        ConfigError: their number does not divide that of the heads.
    """
    heads = int(config.get_text_config().num_attention_heads)
    if heads % sequence_parallel_ranks:
        possible = [str(number) for number in range(1, heads + 1) if heads % number == 0]
        raise ConfigError(
            f"training.sequence_parallel_ranks={sequence_parallel_ranks} must divide the {heads} attention heads of "
            f"{folder}; possible are {', '.join(possible)}"
        )


def require_plain_logits(folder: Path, config: "PreTrainedConfig") -> None:
    """Check that logits can be computed in chunks, apart from the model.

    Raises:
        ConfigError: The model changes them after its output projection.
    """
    if scales_logits(config):
        raise ConfigError(
            f"training.logit_chunk_positions: {folder} bounds or scales the logits after its output projection, which "
            f"chunks do not; set training.logit_chunk_positions=null"
        )


def require_positions_within(
    folder: Path, config: "PreTrainedConfig", max_length_tokens: int, micro_batch_tokens: int
) -> None:
    """Check that what a model computes of an example does not depend on what it is packed with.

    Some models compute otherwise in long texts than in short ones, and take the longest example of a packed row, or
    the row itself, for the text: transformers/modeling_rope_utils.py chooses the frequencies of `longrope` and of
    `dynamic` for all positions of a call, and Llama 4 cuts its attention into chunks by a mask, which packed attention
    does not build, and scales queries by their position in the row.

    Raises:
        ConfigError: an example may be long enough for that, or a row, or the model has no positions for an example.
    """
    text = config.get_text_config()
    if (last := num_positions(config)) is not None and max_length_tokens > last:
        raise ConfigError(
            f"data.max_length_tokens={max_length_tokens}: {folder} has positions for {last:,} tokens; set "
            f"data.max_length_tokens={last} or less"
        )
    limits = {
        "data.max_length_tokens": (max_length_tokens, min(_lengths_of_short_texts(text), default=math.inf)),
        "training.micro_batch_tokens": (micro_batch_tokens, _tokens_of_short_rows(text)),
    }
    for key, (number, most) in limits.items():
        if number > most:
            raise ConfigError(
                f"{key}={number}: {folder} changes its attention above {most:,} tokens; beside others in a packed row, "
                f"a short example would be treated as a long one; set {key}={most} or less"
            )


def _lengths_of_short_texts(text: "PreTrainedConfig") -> Iterator[int]:
    """For everything that changes with the length of a text: up to which length it does not."""
    rotations = getattr(text, "rope_parameters", None) or {}
    for each in [rotations, *(of for of in rotations.values() if isinstance(of, dict))]:
        kind = each.get("rope_type") or "default"
        if kind == "longrope":
            yield int(each["original_max_position_embeddings"])
        elif "dynamic" in kind:
            yield int(text.max_position_embeddings)
    if chunk := getattr(text, "attention_chunk_size", None):
        yield int(chunk)


def _tokens_of_short_rows(text: "PreTrainedConfig") -> float:
    """Tokens of a row up to which all queries have the same scale."""
    return int(text.floor_scale) - 1 if getattr(text, "attn_temperature_tuning", None) else math.inf


def require_routers(folder: Path, config: "PreTrainedConfig") -> None:
    """Check that a model has routers to balance.

    Raises:
        ConfigError: it is no mixture of experts.
    """
    if not num_experts(config.get_text_config()):
        raise ConfigError(f"optimization.router_loss_weight: {folder} is no mixture of experts; leave the key out")
