"""Finds the sizes of a model from its configuration alone, without weights and without allocating memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import transformers

from sftkey_dist.capacity.counted import ATTENTION, layer_bytes, register_counted_attention
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.models.shape import attention_dims_of, decoder_layers, key_value_heads_of, scales_logits
from sftkey_dist.training.forward.chunked_mlp import compute_mlps_in_chunks
from sftkey_dist.training.forward.flops import ModelFlops
from sftkey_dist.training.weights.lora import add_adapters, base_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel

_BYTES_OF_SCORES_WITH_SINKS, _BYTES_OF_BOUNDED_SCORES = (25, 60), (38, 95)
"""Bytes per pair of tokens and head of `training/forward/attention.py`, in the forward and in the backward pass, which
computes scores again; counted on shapes (`tests/unit/capacity/test_architectures.py`)."""
_DTYPES = {2: torch.bfloat16, 4: torch.float32}


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a decoder.

    Attributes:
        parameters: number of weights, including all experts, tied weights once, without adapters.
        trained: number of weights that are trained: all, or those of the adapters.
        embedding: elements of the input embedding.
        output: elements of the output projection; 0 if it is tied to the input embedding.
        layer_weights: elements of each weight of the largest layer, in the order of their use; every layer counts as
            large as this one.
        trained_weights: elements of each weight that is trained, in the order of their use.
        num_layers: number of decoder layers.
        num_heads: number of attention heads.
        num_key_value_heads: number of heads of keys and values.
        hidden_size: width of the residual stream.
        vocab_size: rows of the output projection.
        activation_bytes: bytes per token that the layers keep for the backward pass.
        chunked_bytes: bytes per token that the feed-forward blocks of all layers keep while a chunk is recomputed, and
            that are not in ``activation_bytes``; 0 where they are not computed in chunks.
        chunked_share: share of the layers' weights that is in these blocks.
        held_weight_bytes: bytes of stacked expert weights that stay in memory from the forward to the backward pass.
        moved_bytes: bytes per token that both passes read and write outside matrix products and attention.
        key_value_bytes: bytes per token of the keys and values of all layers.
        score_bytes: bytes per pair of tokens that the forward and the backward pass read and write where no kernel
            computes the attention, which has scores then.
        scales_logits: whether the model bounds or scales the logits after its output projection.
        flops: operations of a step.
    """

    parameters: int
    trained: int
    embedding: int
    output: int
    layer_weights: tuple[int, ...]
    trained_weights: tuple[int, ...]
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    hidden_size: int
    vocab_size: int
    activation_bytes: float
    chunked_bytes: float
    chunked_share: float
    held_weight_bytes: float
    moved_bytes: float
    key_value_bytes: int
    score_bytes: tuple[float, float]
    scales_logits: bool
    flops: ModelFlops

    @property
    def largest_trained(self) -> int:
        """Elements of the largest weight that is trained."""
        return max(self.trained_weights)

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest weight in a layer."""
        return max(self.layer_weights)

    @property
    def largest_gathered(self) -> int:
        """Elements of the largest module that is gathered at once: a layer, or with adapters a matrix of a layer."""
        layer = self.largest_matrix if self.is_frozen else sum(self.layer_weights)
        return max(layer, self.embedding, self.output)

    @property
    def held(self) -> int:
        """Number of weights that the ranks hold: those of the model and of adapters."""
        return self.parameters + (self.trained if self.is_frozen else 0)

    @property
    def is_frozen(self) -> bool:
        """Whether adapters are trained instead of the weights."""
        return self.trained < self.parameters


def size_of(config: "PreTrainedConfig", training: TrainingConfig | None = None, compute_bytes: int = 2) -> ModelSize:
    """The sizes of a model with this configuration, which is built on the meta device.

    Args:
        config: the configuration of transformers.
        training: settings of the training; by default all weights are trained.
        compute_bytes: bytes of a weight or an activation: 2 for bfloat16, 4 for float32.

    Raises:
        ModelError: It is not a decoder that transformers can build and run.
    """
    register_counted_attention()
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=_DTYPES[compute_bytes], attn_implementation=ATTENTION
            )
    except (ValueError, KeyError, AttributeError, ImportError) as error:
        raise ModelError(f"the model cannot be built from its configuration: {loading_problem(error)}") from error
    text = config.get_text_config()
    parameters = sum(weight.numel() for weight in model.parameters())
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    layers = [tuple(weight.numel() for weight in layer.parameters()) for layer in decoder_layers(model)]
    lora = training.lora if training is not None else None
    if lora is not None:
        with torch.device("meta"):
            model = add_adapters(model, lora).to(_DTYPES[compute_bytes])  # as DeepSpeed casts them
    trained = tuple(weight.numel() for weight in model.parameters() if weight.requires_grad)
    # The two gradients of a tied table are added, and decomposed adapters compute norms of weights, once a row.
    is_once_a_row = lora.weight_decomposed if lora is not None else output is embedding
    of_token = layer_bytes(model, without_once_a_row=is_once_a_row)
    kept_at_once, chunked_share = 0.0, 0.0
    if training is not None and training.mlp_chunk_tokens is not None:
        kept_whole, chunked_share = of_token.kept, compute_mlps_in_chunks(model, training.mlp_chunk_tokens)
        of_token = layer_bytes(model, without_once_a_row=is_once_a_row)
        kept_at_once = kept_whole - of_token.kept
    return ModelSize(
        parameters=parameters,
        trained=sum(trained),
        embedding=embedding.numel(),
        output=0 if output is embedding else output.numel(),
        layer_weights=max(layers, key=sum),
        trained_weights=trained,
        num_layers=int(text.num_hidden_layers),
        num_heads=int(text.num_attention_heads),
        num_key_value_heads=key_value_heads_of(text),
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        activation_bytes=of_token.kept,
        chunked_bytes=kept_at_once,
        chunked_share=chunked_share,
        held_weight_bytes=of_token.held_weights,
        moved_bytes=of_token.moved,
        key_value_bytes=_key_value_width(text) * compute_bytes,
        score_bytes=_score_bytes(model, text),
        scales_logits=scales_logits(config),
        flops=ModelFlops.of(base_of(model)),
    )


def _score_bytes(model: "PreTrainedModel | PeftModel", text: "PreTrainedConfig") -> tuple[float, float]:
    """See `ModelSize.score_bytes`. A block of queries has scores for about twice the tokens that one of them sees."""
    has_sinks = any(name.endswith(".sinks") for name, _ in model.named_parameters())
    if getattr(text, "attn_logit_softcapping", None):
        forward, backward = _BYTES_OF_BOUNDED_SCORES
    elif has_sinks:
        forward, backward = _BYTES_OF_SCORES_WITH_SINKS
    else:
        return 0.0, 0.0
    heads = int(text.num_attention_heads) * int(text.num_hidden_layers)
    return float(forward * heads), float(backward * heads)


def _key_value_width(text: "PreTrainedConfig") -> int:
    """Elements of the keys and values of a token in all layers."""
    return int(text.num_hidden_layers) * key_value_heads_of(text) * sum(attention_dims_of(text))
