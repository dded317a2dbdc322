"""The sizes of a model, from its configuration: nothing is downloaded but config.json, nothing allocated."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from sftkey_dist.capacity.counted import ATTENTION, layer_bytes, register_counted_attention
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.training.adapters import add_adapters
from sftkey_dist.training.flops import ModelFlops

_DTYPES = {2: torch.bfloat16, 4: torch.float32}


@dataclass(frozen=True)
class ModelSize:
    """A decoder's sizes.

    Attributes:
        parameters: all weights, tied ones once, without adapters.
        trained: weights that are trained: all, or those of the adapters.
        largest_block: weights of the largest piece that is gathered at once: a layer, or the embedding.
        largest_weight: elements of the largest one that is trained.
        num_layers: decoder layers.
        hidden_size: width of the residual stream.
        vocab_size: rows of the output projection.
        activation_bytes: that the layers keep of a token for the backward pass.
        moved_bytes: of a token, that both passes read and write outside matrix products and attention.
        flops: what a step needs.
    """

    parameters: int
    trained: int
    largest_block: int
    largest_weight: int
    num_layers: int
    hidden_size: int
    vocab_size: int
    activation_bytes: float
    moved_bytes: float
    flops: ModelFlops

    @property
    def is_frozen(self) -> bool:
        """Whether adapters are trained instead of the weights."""
        return self.trained < self.parameters


def size_of(config: Any, training: TrainingConfig | None = None, compute_bytes: int = 2) -> ModelSize:
    """Of a model with this configuration, built without memory.

    Args:
        config: of transformers.
        training: how it will be trained; by default all of it.
        compute_bytes: of a weight or activation: 2 for bfloat16, 4 for float32.

    Raises:
        ModelError: it is no decoder that transformers can build and run.
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
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(layer.weight): layer.weight for layer in ends if layer is not None}
    layers = [sum(weight.numel() for weight in layer.parameters()) for layer in _layers(model, text)]
    if training is not None and training.lora is not None:
        with torch.device("meta"):
            model = add_adapters(model, training.lora).to(_DTYPES[compute_bytes])  # as DeepSpeed casts them
    of_token = layer_bytes(model)
    return ModelSize(
        parameters=parameters,
        trained=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        largest_block=max(*layers, *(weight.numel() for weight in embeddings.values())),
        largest_weight=max(weight.numel() for weight in model.parameters() if weight.requires_grad),
        num_layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        activation_bytes=of_token.kept,
        moved_bytes=of_token.moved,
        flops=ModelFlops.of(config, sum(layers)),
    )


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
