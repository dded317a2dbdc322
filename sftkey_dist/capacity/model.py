"""The sizes of a model, from its configuration: nothing is downloaded but config.json, nothing allocated."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.models.shape import head_dim_of
from sftkey_dist.training.flops import ModelFlops


@dataclass(frozen=True)
class ModelSize:
    """A decoder's sizes.

    Attributes:
        parameters: all weights, tied ones once.
        largest_block: weights of the largest piece that is gathered at once: a layer, or the embedding.
        num_layers: decoder layers.
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP.
        query_width: query heads x head dimension.
        key_value_width: key and value heads x head dimension.
        vocab_size: rows of the output projection.
        flops: what a step needs.
    """

    parameters: int
    largest_block: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    query_width: int
    key_value_width: int
    vocab_size: int
    flops: ModelFlops


def _layers(model: Any, text: Any) -> Any:
    """The decoder's layers: the one list of modules of that length, whatever an architecture calls it.

    Raises:
        ModelError: there is none.
    """
    number = int(text.num_hidden_layers)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return module
    raise ModelError(f"{type(model).__name__} has no list of {number} layers; its capacity cannot be planned")


def size_of(config: Any) -> ModelSize:
    """Of a model with this configuration, built without memory.

    Raises:
        ModelError: it is no decoder that transformers can build.
    """
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, AttributeError, ImportError) as error:
        raise ModelError(f"the model cannot be built from its configuration: {loading_problem(error)}") from error
    text = config.get_text_config()
    heads, kv_heads = int(text.num_attention_heads), int(getattr(text, "num_key_value_heads", 0) or 0)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(layer.weight): layer.weight for layer in ends if layer is not None}
    layers = [sum(weight.numel() for weight in layer.parameters()) for layer in _layers(model, text)]
    return ModelSize(
        parameters=sum(weight.numel() for weight in model.parameters()),
        largest_block=max(*layers, *(weight.numel() for weight in embeddings.values())),
        num_layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        intermediate_size=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        query_width=heads * head_dim_of(text),
        key_value_width=(kv_heads or heads) * head_dim_of(text),
        vocab_size=int(text.vocab_size),
        flops=ModelFlops.of(config, sum(layers)),
    )
