"""The optimizer of a stage: AdamW, and Muon for the matrices of the decoder's layers where it is asked for.

DeepSpeed replaces the gradient of a matrix by Muon's update before it takes the gradient's norm and clips it. The norm
would be that of the updates, which hardly varies, and clipping would shrink them, so that the learning rate would mean
something else. With Muon the gradient is therefore clipped before DeepSpeed sees it, as it is for AdamW.
"""

from typing import Any

import torch

from sftkey_dist.config.strategy import MuonConfig, OptimizationConfig
from sftkey_dist.models.shape import decoder_layers, shape_of
from sftkey_dist.training.engine.library import MuonWithAuxAdam

_MATRIX = 2
_RATIO = "learning_rate_ratio"


def make_optimizer(model: Any, optimization: OptimizationConfig) -> torch.optim.Optimizer:
    """The optimizer of a model's trainable weights.

    Args:
        model: sharded, with its adapters if any; its parameters are marked with who updates them.
        optimization: of the stage.
    """
    adamw: dict[str, Any] = {"lr": optimization.learning_rate, "betas": optimization.betas, "eps": optimization.epsilon}
    by_muon = _hidden_matrices(model) if optimization.muon is not None else set()
    for parameter in model.parameters():
        parameter.use_muon = id(parameter) in by_muon
    others = {name: parameter for name, parameter in model.named_parameters() if not parameter.use_muon}
    groups = _groups(others, optimization.weight_decay)
    if optimization.muon is None:
        return torch.optim.AdamW(groups, **adamw, fused=True)
    groups = [group | adamw | {"use_muon": False} for group in groups]
    matrices = [parameter for parameter in model.parameters() if parameter.use_muon]
    groups.append({"params": matrices, **_keys_of_muon(optimization, optimization.muon)})
    kernel = {"adam_optimizer": torch.optim.AdamW, "adam_optimizer_kwargs": {"fused": True}}
    both: torch.optim.Optimizer = MuonWithAuxAdam(groups, **kernel)
    return both


def set_learning_rate(groups: list[dict[str, Any]], learning_rate: float) -> None:
    """Set that of all groups of parameters to what a step has, times the group's own ratio."""
    for group in groups:
        group["lr"] = learning_rate * group.get(_RATIO, 1.0)


def _keys_of_muon(optimization: OptimizationConfig, muon: MuonConfig) -> dict[str, Any]:
    return {
        "use_muon": True,
        "lr": optimization.learning_rate * muon.learning_rate_ratio,
        _RATIO: muon.learning_rate_ratio,
        "momentum": muon.momentum,
        "weight_decay": optimization.weight_decay,
        "ns_method": "gram",
    }


def _hidden_matrices(model: Any) -> set[int]:
    return {
        id(parameter)
        for layer in decoder_layers(model)
        for name, parameter in layer.named_parameters()
        if len(shape_of(parameter)) == _MATRIX and not _is_bias(name)
    }


def _is_bias(name: str) -> bool:
    """Whether a parameter is a bias. Those of stacked experts, a row for each, have the shape of a matrix."""
    return name.endswith("bias")


def _groups(parameters: dict[str, torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters for AdamW: matrices decay, norms and biases do not."""
    trainable = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    decays = {name: len(shape_of(parameter)) >= _MATRIX and not _is_bias(name) for name, parameter in trainable.items()}
    groups = [
        {"params": [parameter for name, parameter in trainable.items() if decays[name]], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trainable.items() if not decays[name]], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
