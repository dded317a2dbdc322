"""The sizes of a model, from its configuration: nothing is downloaded but config.json, nothing allocated.

What the backward pass will need is not estimated but counted: the model runs once on the meta device, and autograd
says what it keeps.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface

from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.training.adapters import add_adapters, base_of
from sftkey_dist.training.flops import ModelFlops

_ATTENTION = "counted_attention"
_COUNTED_TOKENS = 64
_DTYPES = {2: torch.bfloat16, 4: torch.float32}


@dataclass(frozen=True)
class ModelSize:
    """A decoder's sizes.

    Attributes:
        parameters: all weights, tied ones once, without adapters.
        trained: weights that are trained: all, or those of the adapters.
        largest_block: weights of the largest piece that is gathered at once: a layer, or the embedding.
        num_layers: decoder layers.
        hidden_size: width of the residual stream.
        vocab_size: rows of the output projection.
        activation_bytes: that the layers keep of a token for the backward pass.
        flops: what a step needs.
    """

    parameters: int
    trained: int
    largest_block: int
    num_layers: int
    hidden_size: int
    vocab_size: int
    activation_bytes: float
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
    AttentionInterface.register(_ATTENTION, _counted_attention)
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=_DTYPES[compute_bytes], attn_implementation=_ATTENTION
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
            model = add_adapters(model, training.lora)
    return ModelSize(
        parameters=parameters,
        trained=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        largest_block=max(*layers, *(weight.numel() for weight in embeddings.values())),
        num_layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        activation_bytes=_kept_bytes(model) / _COUNTED_TOKENS,
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


def _kept_bytes(model: Any) -> int:
    """Bytes of all tensors that autograd keeps of a forward pass, but weights; each storage once.

    Raises:
        ModelError: the model does not run on shapes alone.
    """
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros(1, _COUNTED_TOKENS, dtype=torch.int64, device="meta")
    positions = torch.arange(_COUNTED_TOKENS, device="meta")[None]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        try:
            output = base_of(model)(
                input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False, logits_to_keep=1
            )
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise ModelError(f"the model does not run on shapes alone: {loading_problem(error)}") from error
    del output  # until here the graph kept every storage alive, so that none was counted under another's address
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights)


class _KeepsItsOperands(torch.autograd.Function):
    """Flash attention keeps queries, keys, values, its output and the logarithm of the softmax's denominator."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        normaliser = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, output, normaliser)
        return output


def _counted_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    output: Tensor = _KeepsItsOperands.apply(query, key, value)
    return output.transpose(1, 2).contiguous(), None
