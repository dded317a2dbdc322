"""What a model's configuration must have for settings of the training."""

from pathlib import Path

import pytest
import transformers

from sftkey_dist.errors import ConfigError
from sftkey_dist.models.shape import (
    experts_per_token,
    require_heads_for,
    require_positions_within,
    require_routers,
)

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


def test_rows_are_no_longer_than_what_a_model_scales_alike():
    require_positions_within(FOLDER, LLAMA_4, 600, 8191)
    with pytest.raises(ConfigError, match=r"micro_batch_tokens=8192: models/some .*; set .*=8191 or less"):
        require_positions_within(FOLDER, LLAMA_4, 600, 8192)
