"""Which weights decay, and which Muon updates."""

import pytest
import torch
import transformers

from sftkey_dist.config.strategy import MuonConfig, OptimizationConfig
from sftkey_dist.training.engine import optimizer


@pytest.fixture(scope="module")
def model():
    config = transformers.GptOssConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["full_attention"],
    )
    return transformers.GptOssForCausalLM(config)


def names_in(model, parameters) -> set[str]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return {by_id[id(parameter)] for parameter in parameters}


def test_biases_do_not_decay_though_those_of_experts_have_the_shape_of_a_matrix(model):
    decaying, others = optimizer.make_optimizer(model, OptimizationConfig(weight_decay=0.1)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    assert any(dict(model.named_parameters())[name].dim() == 2 for name in biases), "those of the experts"
    assert biases <= names_in(model, others["params"])
    assert not any(name.endswith("bias") for name in names_in(model, decaying["params"]))


def test_muon_updates_no_bias(model, monkeypatch):
    monkeypatch.setattr(optimizer, "MuonWithAuxAdam", lambda groups, **_: groups)
    groups = optimizer.make_optimizer(model, OptimizationConfig(muon=MuonConfig(learning_rate_ratio=20.0)))
    by_muon = names_in(model, groups[-1]["params"])
    assert any("q_proj.weight" in name for name in by_muon)
    assert not any(name.endswith("bias") for name in by_muon)
    assert all(isinstance(parameter, torch.nn.Parameter) for parameter in groups[-1]["params"])
