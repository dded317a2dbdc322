"""Low-rank adapters (LoRA, arXiv:2106.09685) through peft: added before a stage, merged into the weights after it.

A stage ends in an ordinary model folder either way, so a second stage continues from the merged weights with adapters
of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from sftkey_dist.config.training import LoraConfig
from sftkey_dist.errors import ModelError

_ADAPTER = "default"


def add_adapters(model: Any, config: LoraConfig) -> Any:
    """The model with trainable adapters, its own weights frozen; it computes the same as before until it is trained.

    Raises:
        ModelError: no layer has a name in ``target_modules``, or one of them cannot be merged by itself.
    """
    try:
        adapted = peft.get_peft_model(
            model,
            peft.LoraConfig(
                task_type="CAUSAL_LM",
                r=config.rank,
                lora_alpha=config.alpha,
                lora_dropout=config.dropout,
                target_modules=list(config.target_modules) or "all-linear",
            ),
            adapter_name=_ADAPTER,
            autocast_adapter_dtype=False,  # ZeRO-3 keeps float32 masters of everything it trains
        )
    except ValueError as error:
        raise ModelError(f"training.lora.target_modules: {' '.join(str(error).split())[:300]}") from error
    _require_mergeable(adapted.get_base_model())
    return adapted


def base_of(model: Any) -> Any:
    """The model without its adapters' wrapper."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def exported_weights(base: Any) -> Iterator[tuple[str, list[torch.nn.Parameter], Callable[[], Tensor]]]:
    """Name of every exported weight, the parameters it is made of, and its value once those are whole."""
    adapted = {name: layer for name, layer in base.named_modules() if isinstance(layer, LoraLayer)}
    for name, parameter in base.named_parameters():
        place, _, kind = name.rpartition(".")
        layer = adapted.get(place.removesuffix(".base_layer"))
        if layer is None:
            if not _belongs_to_adapter(place):
                yield name, [parameter], _value_of(parameter)
        elif kind == "weight":
            parts = [parameter, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight]
            yield name.replace(".base_layer.", "."), parts, _merged(parameter, layer)
        else:
            yield name.replace(".base_layer.", "."), [parameter], _value_of(parameter)


def _require_mergeable(base: Any) -> None:
    """An adapter is merged into a linear layer's weight, which no other layer may share."""
    shared = base.get_input_embeddings().weight if base.config.get_text_config().tie_word_embeddings else None
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer) and (_ADAPTER not in layer.lora_A or layer.weight is shared):
            raise ModelError(
                f"training.lora.target_modules: {name} cannot have an adapter; name linear layers whose weights are "
                f"not tied to the embeddings"
            )


def _belongs_to_adapter(place: str) -> bool:
    return any(part.startswith("lora_") for part in place.split("."))


def _value_of(parameter: torch.nn.Parameter) -> Callable[[], Tensor]:
    return lambda: parameter.detach()


def _merged(weight: torch.nn.Parameter, layer: Any) -> Callable[[], Tensor]:
    return lambda: weight.detach() + layer.get_delta_weight(_ADAPTER).detach().to(weight.dtype)
