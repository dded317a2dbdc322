"""What a model's configuration must have for settings of the training."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from sftkey_dist.errors import ConfigError, ModelError
from sftkey_dist.models.accelerator import weights_bytes_in
from sftkey_dist.models.requirements import (
    require_heads_for,
    require_plain_logits,
    require_positions_within,
    require_routers,
    require_trainable,
)
from sftkey_dist.models.shape import attention_window_of, count_parameters, experts_per_token
from sftkey_dist.models.weight_files import weight_files
from sftkey_dist.sampler import AttentionWindow

FOLDER = Path("models/some")
DENSE = transformers.Qwen2Config(num_attention_heads=12, num_key_value_heads=2)
EXPERTS = transformers.Qwen3MoeConfig(num_experts=8, num_experts_per_tok=3)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 12])
def test_heads_are_shared_evenly(ranks):
    require_heads_for(FOLDER, DENSE, ranks)


def test_a_number_of_ranks_that_does_not_divide_the_heads_is_refused_with_those_that_do():
    with pytest.raises(
        ConfigError, match=r"sequence_parallel_ranks=8 must divide the 12 .* models/some; possible are 1, "
    ):
        require_heads_for(FOLDER, DENSE, 8)


def test_routers_are_balanced_only_where_there_are_some():
    require_routers(FOLDER, EXPERTS)
    assert experts_per_token(EXPERTS) == 3
    with pytest.raises(ConfigError, match=r"router_loss_weight: models/some is no mixture of experts"):
        require_routers(FOLDER, DENSE)


PHI = transformers.Phi3Config(
    max_position_embeddings=1000,
    original_max_position_embeddings=500,
    rope_parameters={
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 500,
        "short_factor": [1.0] * 48,
        "long_factor": [2.0] * 48,
    },
)
DYNAMIC = transformers.LlamaConfig(
    max_position_embeddings=700, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
)
LLAMA_4 = transformers.Llama4TextConfig(attention_chunk_size=600, floor_scale=8192)


@pytest.mark.parametrize(("config", "most"), [(PHI, 500), (DYNAMIC, 700), (LLAMA_4, 600)])
def test_examples_are_no_longer_than_what_a_model_computes_alike_whatever_they_are_packed_with(config, most):
    require_positions_within(FOLDER, config, most, 4096)
    require_positions_within(FOLDER, DENSE, 100_000, 100_000)
    with pytest.raises(
        ConfigError, match=f"data.max_length_tokens={most + 1}: models/some changes its attention above {most} tokens"
    ):
        require_positions_within(FOLDER, config, most + 1, 4096)


def test_examples_are_no_longer_than_a_models_table_of_positions():
    gpt2 = transformers.GPT2Config(n_positions=100)
    require_positions_within(FOLDER, gpt2, 100, 4096)
    with pytest.raises(ConfigError, match=r"data.max_length_tokens=101: models/some has positions for 100 tokens; set"):
        require_positions_within(FOLDER, gpt2, 101, 4096)


def test_a_length_in_the_configuration_of_a_model_without_positions_is_no_limit():
    jamba = transformers.JambaConfig(
        num_hidden_layers=2, hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=100, attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False, vocab_size=64,
    )  # fmt: skip
    require_positions_within(FOLDER, jamba, 1000, 4096)


WINDOWED = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}


@pytest.mark.parametrize(
    ("kind", "settings", "windowed"),
    [
        (transformers.LlamaConfig, {}, 0),
        (transformers.Qwen2Config, {"sliding_window": 8}, 0),
        (transformers.Qwen2Config, WINDOWED, 3),
        (transformers.MistralConfig, {"sliding_window": 8}, 6),
        (transformers.MistralConfig, {"sliding_window": None}, 0),
        (transformers.Phi3Config, {"sliding_window": 8}, 6),
        (transformers.Gemma2Config, {"sliding_window": 8}, 3),
        (transformers.Gemma3TextConfig, {"sliding_window": 8}, 5),
        (transformers.GptOssConfig, {"sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2}, 3),
        (transformers.Olmo3Config, {"sliding_window": 8}, 5),
    ],
)
def test_windows_are_those_that_the_layers_pass_to_their_attention(kind, settings, windowed):
    passed: list[int | None] = []

    def attend(module, query, key, value, attention_mask, sliding_window=None, **others):
        passed.append(sliding_window)
        return torch.zeros(1, query.shape[2], query.shape[1], value.shape[-1]), None

    transformers.AttentionInterface.register("passed", attend)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "head_dim": 8}
    config = kind(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="passed")
    model(input_ids=torch.ones(1, 12, dtype=torch.int64), use_cache=False)
    assert sum(window == 8 for window in passed) == windowed
    assert set(passed) <= {8, None}
    assert attention_window_of(config) == (AttentionWindow(8, windowed, 6) if windowed else None)


def test_rows_are_no_longer_than_what_a_model_scales_alike():
    require_positions_within(FOLDER, LLAMA_4, 600, 8191)
    with pytest.raises(ConfigError, match=r"micro_batch_tokens=8192: models/some .*; set .*=8191 or less"):
        require_positions_within(FOLDER, LLAMA_4, 600, 8192)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"quantization_config": {"quant_method": "mxfp4"}},
            r"its weights are quantized \(mxfp4\) and cannot be trained",
        ),
        ({"model_type": "gemma3"}, "Gemma3Config is not the configuration of a language model alone"),
        ({"model_type": "qwen2_5_vl"}, "is not the configuration of a language model alone"),
        ({"model_type": "no_such_model"}, r"cannot read config\.json"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_configuration(tiny_model, tmp_path, changes, message):
    require_trainable(tiny_model)
    content = json.loads((tiny_model / "config.json").read_text())
    kept = content if "model_type" not in changes else {}
    (tmp_path / "config.json").write_text(json.dumps(kept | changes))
    with pytest.raises(ModelError, match=message):
        require_trainable(tmp_path)


def test_copies_of_the_weights_for_other_libraries_do_not_count(tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    size, parameters = weights_bytes_in(folder), count_parameters(folder)
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert (weights_bytes_in(folder), count_parameters(folder)) == (size, parameters)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files(folder) == [folder / "model-00001-of-00001.safetensors"]
    (folder / "model.safetensors.index.json").write_text("damaged")
    assert len(weight_files(folder)) == 2


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (transformers.Gemma2Config, {"final_logit_softcapping": 30.0}),
        (transformers.CohereConfig, {"logit_scale": 0.0625}),
        (transformers.GraniteConfig, {"logits_scaling": 8.0}),
    ],
)
def test_logits_that_a_model_changes_after_the_projection_are_not_computed_in_chunks(kind, changes):
    with pytest.raises(ConfigError, match=r"logit_chunk_positions: .*models/some bounds or scales the logits"):
        require_plain_logits(FOLDER, kind(**changes))
    require_plain_logits(FOLDER, DENSE)
    require_plain_logits(FOLDER, transformers.GraniteConfig(logits_scaling=1.0))
