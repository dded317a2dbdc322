"""Low-rank adapters (LoRA, arXiv:2106.09685) through peft: added before a stage, merged into the weights after it.

An adapter of weight W [out, in] has matrices A [rank, in] and B [out, rank]; merged they give W + s·BA. A decomposed
one (DoRA, arXiv:2402.09353) also has the lengths [out] that the rows of W + s·BA are scaled to.

A stage ends in an ordinary model folder either way, so a second stage continues from the merged weights with adapters
of its own. Stages without adapters do not load peft.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.config.training import LoraConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.models.shape import decoder_layers, is_of_experts, shape_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_ADAPTER = "default"


def add_adapters(model: "PreTrainedModel", config: LoraConfig) -> "PeftModel":
    """The model with trainable adapters, its own weights frozen; it computes the same as before until it is trained.

    Raises:
        ModelError: no layer has a name in ``target_modules``, or one of them cannot be merged by itself.
    """
    import peft

    try:
        adapted = peft.get_peft_model(
            model,
            peft.LoraConfig(
                task_type="CAUSAL_LM",
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                use_rslora=config.rank_stabilized,
                use_dora=config.weight_decomposed,
                target_modules=list(config.target_modules) or _default_targets(model),
            ),
            adapter_name=_ADAPTER,
            autocast_adapter_dtype=False,  # ZeRO-3 keeps float32 masters of everything it trains
        )
    except ValueError as error:
        raise ModelError(f"training.lora.target_modules: {in_a_line(error, 300)}") from error
    _require_mergeable(adapted.get_base_model())
    return adapted


def _default_targets(model: "PreTrainedModel") -> str | list[str]:
    """Every linear layer but the output projection; of a mixture of experts only those outside its blocks of experts.

    Mixtures stack the matrices of their experts, which no adapter can be merged into one by one. By "all-linear", and
    by the names of a shared expert's layers, peft would add adapters to the stacks as well.
    """
    layers, text = decoder_layers(model), model.config.get_text_config()
    blocks = {
        name.split(".")[0]
        for layer in layers
        for name, parameter in layer.named_parameters()
        if is_of_experts(name, shape_of(parameter), text)
    }
    if not blocks:
        return "all-linear"
    return sorted(
        {
            name.rpartition(".")[2]
            for layer in layers
            for name, module in layer.named_modules()
            if isinstance(module, torch.nn.Linear) and name.split(".")[0] not in blocks
        }
    )


def base_of(model: "PreTrainedModel | PeftModel") -> "PreTrainedModel":
    """The model without its adapters' wrapper."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@dataclass(frozen=True)
class ExportedWeight:
    """A weight of the model that a stage ends in.

    Attributes:
        name: in its folder.
        parameter: that holds it, without the adapter.
        adapter: the layer whose adapter is added to it; None without one.
    """

    name: str
    parameter: torch.nn.Parameter
    adapter: Any = None

    @property
    def parts(self) -> tuple[torch.nn.Parameter, ...]:
        """What the adapter consists of: its A and B, and the lengths of rows if it has them; nothing without one."""
        if self.adapter is None:
            return ()
        matrices = self.adapter.lora_A[_ADAPTER].weight, self.adapter.lora_B[_ADAPTER].weight
        return matrices if self.lengths is None else (*matrices, self.lengths)

    @property
    def lengths(self) -> torch.nn.Parameter | None:
        """The adapter's trained lengths of rows, [out]; None where it has none."""
        magnitudes = getattr(self.adapter, "lora_magnitude_vector", {})
        return magnitudes[_ADAPTER].weight if _ADAPTER in magnitudes else None

    def merged(self, whole: Tensor, *parts: Tensor) -> Tensor:
        """The weight with its adapter, in their precision.

        Args:
            whole: the weight without it.
            parts: the adapter's, whole.
        """
        if not parts:
            return whole
        a, b, *lengths = parts
        product: Tensor = (b @ a) * self.adapter.scaling[_ADAPTER]
        merged = whole + (product.T if self._is_transposed else product)
        for length in lengths:
            scale = length / self.row_lengths(merged)
            merged = merged * (scale[None, :] if self._is_transposed else scale[:, None])
        return merged

    def row_lengths(self, whole: Tensor) -> Tensor:
        """Lengths [out] of a whole weight's rows, one for each output."""
        lengths: Tensor = torch.linalg.vector_norm(whole, dim=0 if self._is_transposed else 1)
        return lengths

    @property
    def _is_transposed(self) -> bool:
        return getattr(self.adapter, "fan_in_fan_out", False)


def exported_weights(base: "PreTrainedModel") -> Iterator[ExportedWeight]:
    """Every weight of the model without its adapters' wrapper, in the order of its parameters."""
    adapted = {name: layer for name, layer in base.named_modules() if _has_adapter(layer)}
    for name, parameter in base.named_parameters():
        place, _, kind = name.rpartition(".")
        layer = adapted.get(place.removesuffix(".base_layer"))
        if layer is not None:
            adapter = layer if kind == "weight" else None
            yield ExportedWeight(name.replace(".base_layer.", "."), parameter, adapter)
        elif not _belongs_to_adapter(place):
            yield ExportedWeight(name, parameter)


def read_beyond_their_layer(base: "PreTrainedModel") -> Iterator[tuple[torch.nn.Module, torch.nn.Parameter]]:
    """Weights that an adapter reads outside the layer which they belong to, after a module that contains both."""
    for weight in exported_weights(base):
        if weight.lengths is not None:
            yield from ((weight.adapter, parameter) for parameter in weight.adapter.get_base_layer().parameters())


def save_adapter(model: "PeftModel", matrices: Mapping[str, Tensor], folder: Path) -> None:
    """Write an adapter as peft does.

    Args:
        model: with the adapter.
        matrices: its whole matrices by the names of the model's parameters.
        folder: where to write; it names the folder of the model that the adapter belongs to.
    """
    model.save_pretrained(str(folder), state_dict=dict(matrices), save_embedding_layers=False)


def is_second_matrix(name: str) -> bool:
    """Whether a parameter is an adapter's B, by which its whole product is scaled."""
    return "lora_B" in name.split(".")


def _require_mergeable(base: "PreTrainedModel") -> None:
    """An adapter is merged into a linear layer's weight, which no other layer may share."""
    shared = base.get_input_embeddings().weight if base.config.get_text_config().tie_word_embeddings else None
    for name, layer in base.named_modules():
        if _has_adapter(layer) and not hasattr(layer, "weight"):  # peft wraps the stacked matrices of experts
            raise ModelError(
                f"training.lora.target_modules: {name} holds the matrices of several experts, to which no adapter can "
                f"be merged; name other layers, for example training.lora.target_modules=[q_proj,k_proj,v_proj,o_proj]"
            )
        if _has_adapter(layer) and (_ADAPTER not in layer.lora_A or layer.weight is shared):
            raise ModelError(
                f"training.lora.target_modules: {name} cannot have an adapter; name linear layers whose weights are "
                f"not tied to the embeddings"
            )


def _has_adapter(layer: torch.nn.Module) -> bool:
    return hasattr(layer, "lora_A")


def _belongs_to_adapter(place: str) -> bool:
    return any(part.startswith("lora_") for part in place.split("."))
