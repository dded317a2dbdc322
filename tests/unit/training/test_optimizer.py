import pytest
import torch
from transformers import AutoModelForCausalLM

from sftkey_dist.config.strategy import MuonConfig, OptimizationConfig
from sftkey_dist.training.engine.optimizer import make_optimizer, set_learning_rate


@pytest.fixture
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def names_of(model, group) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def test_muon_has_the_matrices_of_the_layers_and_adamw_has_the_rest(model):
    muon = MuonConfig(learning_rate_ratio=20, momentum=0.9)
    optimizer = make_optimizer(model, OptimizationConfig(learning_rate=1e-4, weight_decay=0.1, muon=muon))
    decayed, vectors, matrices = optimizer.param_groups
    everything = {name for name, _ in model.named_parameters()}
    assert names_of(model, matrices) == {name for name in everything if "_proj.weight" in name}
    assert names_of(model, decayed) == {"model.embed_tokens.weight"}
    assert names_of(model, vectors) == everything - names_of(model, matrices) - names_of(model, decayed)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.1]
    assert matrices["momentum"] == 0.9
    set_learning_rate(optimizer.param_groups, 1e-3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 1e-3, 2e-2])


def test_without_muon_adamw_has_all_weights(model):
    optimizer = make_optimizer(model, OptimizationConfig(weight_decay=0.1))
    assert type(optimizer) is torch.optim.AdamW
    assert {name for group in optimizer.param_groups for name in names_of(model, group)} == {
        name for name, _ in model.named_parameters()
    }
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_adamw_has_the_betas_and_the_epsilon_of_the_stage(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    optimizer = make_optimizer(model, OptimizationConfig(betas=(0.8, 0.98), epsilon=1e-6))
    assert [(group["betas"], group["eps"]) for group in optimizer.param_groups] == [((0.8, 0.98), 1e-6)] * 2
