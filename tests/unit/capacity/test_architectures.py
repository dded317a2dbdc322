"""Models that are counted otherwise than dense ones, and what is proposed for them."""

from dataclasses import replace

import pytest
import torch
import transformers

from sftkey_dist.capacity import Cluster, find_accelerator, size_of
from sftkey_dist.capacity.counted import MovedBytes
from sftkey_dist.capacity.estimate import StageLoad, _changes
from sftkey_dist.capacity.memory import estimate_memory
from sftkey_dist.config.training import TrainingConfig, ZeroConfig
from sftkey_dist.training.forward.attention import _in_blocks
from tests.benchmarks.capacity import LARGE, SHAPES

H100 = find_accelerator("h100-80g")
DENSE = size_of(SHAPES["8B (Qwen3)"])
LOAD = StageLoad("stage", 1, 4096, lambda ranks, tokens: [])
MIXTURE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
}
LATENT = {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "kv_lora_rank": 8, "q_lora_rank": 8}


def test_latent_attention_is_counted_with_the_dimensions_of_its_keys_and_values():
    experts = {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1}
    size = size_of(transformers.DeepseekV2Config(**MIXTURE, **LATENT, **experts))
    assert size.flops.attention_width == 2 * 4 * (24 + 16) / 2
    assert size.key_value_bytes == 2 * 2 * 4 * (24 + 16)


def test_expert_weights_are_held_for_the_backward_pass_where_a_view_of_them_is_kept():
    """transformers transposes the stacks of Mixtral's experts; gpt-oss multiplies with the parameter itself."""
    size = size_of(transformers.MixtralConfig(**MIXTURE, num_local_experts=4))
    assert size.held_weight_bytes == 2 * 2 * 4 * 3 * 32 * 48
    part = "expert weights, held for the backward pass"
    training = TrainingConfig(zero=ZeroConfig(max_gathered_gib=0))
    assert estimate_memory(size, training, H100, 2, 64, 64).parts[part] == size.held_weight_bytes / 2**30
    assert part not in estimate_memory(size, training, H100, 1, 64, 64).parts
    recomputed = training.model_copy(update={"gradient_checkpointing": True})
    assert part not in estimate_memory(size, recomputed, H100, 2, 64, 64).parts
    assert size_of(transformers.GptOssConfig(**MIXTURE, head_dim=8, num_local_experts=4)).held_weight_bytes == 0


def test_a_single_rank_gathers_nothing_beside_its_part():
    alone = estimate_memory(DENSE, LARGE, H100, 1, 1024, 1024).parts
    assert "weights, gathered" not in alone
    assert alone["weights, partitioned"] == pytest.approx(2 * DENSE.parameters / 2**30)


def test_the_gradient_of_a_tied_table_is_no_traffic_of_every_token():
    sizes = {name: value for name, value in MIXTURE.items() if "moe" not in name} | {"vocab_size": 10_000}
    tied, untied = (size_of(transformers.Qwen3Config(**sizes, tie_word_embeddings=tie)) for tie in (True, False))
    assert tied.moved_bytes == pytest.approx(untied.moved_bytes, rel=0.05)


def test_computing_a_block_in_chunks_moves_hardly_more_bytes():
    config = transformers.Qwen3Config(**{name: value for name, value in MIXTURE.items() if "moe" not in name})
    chunked = TrainingConfig(mlp_chunk_tokens=32, gradient_checkpointing=True)
    assert size_of(config, chunked).moved_bytes < 1.3 * size_of(config).moved_bytes


@pytest.mark.parametrize("kind", ["sinks", "bounded"])
def test_scores_move_the_bytes_that_the_attention_in_blocks_moves(kind):
    heads, tokens, dim = 16, 4096, 64
    query, key, value = (
        torch.empty(1, heads, tokens, dim, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(3)
    )
    sinks = torch.empty(heads, dtype=torch.bfloat16, device="meta") if kind == "sinks" else None
    softcap = 50.0 if kind == "bounded" else None
    with MovedBytes() as forward:
        attended = _in_blocks(
            query, key, value, scaling=None, dropout=0.0, sliding_window=None, sinks=sinks, softcap=softcap
        )
    with MovedBytes() as backward:
        attended.sum().backward()
    sizes = {**MIXTURE, "num_attention_heads": heads, "head_dim": dim}
    if kind == "sinks":
        config = transformers.GptOssConfig(**sizes, num_local_experts=4, layer_types=["full_attention"] * 2)
    else:
        config = transformers.Gemma2Config(**sizes, layer_types=["full_attention"] * 2)
    expected = [2 * moved.total / tokens**2 for moved in (forward, backward)]
    assert size_of(config).score_bytes == pytest.approx(expected, rel=0.4)


def test_only_what_a_run_accepts_is_proposed():
    size, cluster = DENSE, Cluster(1, 8, H100)
    proposed = [text for text, _ in _changes(size, LARGE, cluster, LOAD)]
    assert any("gradient_checkpointing" in text for text in proposed)
    stopped = replace(LOAD, may_recompute=False, least_row_tokens=8192)
    assert not any(
        "gradient_checkpointing" in text or "half" in text for text, _ in _changes(size, LARGE, cluster, stopped)
    )
    scaled = replace(size, scales_logits=True)
    whole = LARGE.model_copy(update={"logit_chunk_positions": None})
    assert not any("logit_chunk" in text for text, _ in _changes(scaled, whole, cluster, LOAD))
