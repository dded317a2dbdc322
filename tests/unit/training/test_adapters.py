import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3MoeConfig

from sftkey_dist.config.training import LoraConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.training.weights.lora import add_adapters, base_of, exported_weights


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_layer", "training.lora.target_modules"),
        ("embed_tokens", "embed_tokens cannot have an adapter"),
        ("lm_head", "lm_head cannot have an adapter"),
    ],
)
def test_layers_that_cannot_be_merged_are_refused_before_training(tiny_model, target, message):
    """The output projection is tied to the embeddings here: merged into one of them it would change both."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(ModelError, match=message):
        add_adapters(model, LoraConfig(target_modules=(target,)))


_MIXTURE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts_per_tok": 2,
}


def test_stacked_experts_are_named_and_layers_that_can_have_adapters_with_them():
    config = Qwen3MoeConfig(**_MIXTURE, num_experts=4)
    with pytest.raises(ModelError, match=r"mlp.experts.* matrices of several experts.*target_modules=\[q_proj,"):
        add_adapters(AutoModelForCausalLM.from_config(config), LoraConfig(target_modules=("gate_proj", "up_proj")))
    adapted = add_adapters(AutoModelForCausalLM.from_config(config), LoraConfig(target_modules=("q_proj", "v_proj")))
    assert _adapted(adapted) == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("model_type", "experts", "targets"),
    [
        ("qwen3_moe", {"num_experts": 4}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mixtral", {"num_local_experts": 4}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        # The first layer is dense, and the second has a shared expert beside the routed ones.
        (
            "deepseek_v2",
            {
                "n_routed_experts": 4,
                "n_shared_experts": 1,
                "first_k_dense_replace": 1,
                "q_lora_rank": 4,
                "v_head_dim": 8,
            },
            {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
        ),
        ("gpt_oss", {"num_local_experts": 4}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        (
            "qwen3_next",
            {"num_experts": 4, "layer_types": ["linear_attention", "full_attention"]},
            {"in_proj_qkvz", "in_proj_ba", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj"},
        ),
    ],
)
def test_the_attention_of_a_mixture_of_experts_has_adapters_by_default(model_type, experts, targets):
    config = AutoConfig.for_model(model_type, **_MIXTURE, **experts)
    adapted = add_adapters(AutoModelForCausalLM.from_config(config), LoraConfig())
    assert _adapted(adapted) == targets


def _adapted(model):
    """Names of the layers with an adapter."""
    return {name.split(".")[-4] for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2),
        GPT2Config(vocab_size=32, n_embd=8, n_inner=12, n_layer=1, n_head=2),  # its weights are [in, out]
    ],
    ids=["llama", "gpt2"],
)
def test_weights_are_merged_as_peft_merges_them(config, decomposed):
    torch.manual_seed(0)
    adapted = add_adapters(
        AutoModelForCausalLM.from_config(config), LoraConfig(rank=2, alpha=8.0, weight_decomposed=decomposed)
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += torch.rand_like(parameter)
    exported = list(exported_weights(base_of(adapted)))
    assert {len(weight.parts) for weight in exported} == {0, 3 if decomposed else 2}
    with torch.no_grad():
        merged = {weight.name: weight.merged(weight.parameter.clone(), *weight.parts) for weight in exported}
    expected = dict(adapted.merge_and_unload().named_parameters())
    assert merged.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight.detach(), rtol=1e-5, atol=1e-6)


def test_adapters_drop_what_the_configuration_says(tiny_model):
    adapted = add_adapters(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(rank=2, dropout=0.25))
    dropped = {name: module.p for name, module in adapted.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert {share for name, share in dropped.items() if "lora" in name} == {0.25}


def test_adapters_have_the_scale_of_the_configuration(tiny_model):
    for stabilized, scale in ((False, 4.0), (True, 8.0)):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        adapted = add_adapters(model, LoraConfig(rank=4, alpha=16.0, rank_stabilized=stabilized))
        assert {m.scaling["default"] for m in adapted.modules() if hasattr(m, "lora_A")} == {scale}
