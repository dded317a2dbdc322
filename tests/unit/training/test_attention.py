"""Packed causal attention against a dense masked softmax written out."""

import copy

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from sftkey_dist.training.attention import (
    PACKED_SDPA,
    PrefixMemory,
    packed_causal_attention,
    register_packed_attention,
)
from sftkey_dist.training.collate import dummy_row, pack, split_before_targets

LENGTHS = (5, 1, 9, 3)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ARCHITECTURES = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2-window": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "smollm3": SmolLM3Config(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2),
    "mistral-window": MistralConfig(**SIZES, sliding_window=4),
}


def dense_reference(query, key, value, scaling, window):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    example = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    distance = torch.arange(len(example))[:, None] - torch.arange(len(example))[None, :]
    allowed = (example[:, None] == example[None, :]) & (distance >= 0)
    if window is not None:
        allowed &= distance < window
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_dense_block_attention(kv_heads, window):
    torch.manual_seed(0)
    query, (key, value) = torch.randn(1, 4, sum(LENGTHS), 8), torch.randn(2, 1, kv_heads, sum(LENGTHS), 8)
    output, _ = packed_causal_attention(
        torch.nn.Identity(), query, key, value, None, scaling=0.3, example_lengths=LENGTHS, sliding_window=window
    )
    torch.testing.assert_close(output, dense_reference(query, key, value, 0.3, window), atol=1e-6, rtol=1e-5)


def test_a_mask_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="example_lengths"):
        packed_causal_attention(torch.nn.Identity(), q, q, q, torch.ones(1), example_lengths=(2,))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_row_gives_every_example_the_logits_it_has_alone(name):
    transformers.set_seed(0)
    register_packed_attention()
    alone, packed = (
        AutoModelForCausalLM.from_config(copy.deepcopy(ARCHITECTURES[name]), attn_implementation=attention).eval()
        for attention in ("eager", PACKED_SDPA)
    )
    packed.load_state_dict(alone.state_dict())
    ids = torch.randint(0, 64, (1, sum(LENGTHS)))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    logits = packed(
        input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False, example_lengths=LENGTHS
    ).logits[0]
    expected = torch.cat([alone(input_ids=part, use_cache=False).logits[0] for part in ids.split(LENGTHS, dim=1)])
    torch.testing.assert_close(logits, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_behind_a_stopped_prefix_logits_are_the_same_and_gradients_those_of_a_detached_cache(name):
    """The reference runs each example through transformers' own key-value cache."""
    transformers.set_seed(0)
    register_packed_attention()
    alone, packed = (
        AutoModelForCausalLM.from_config(copy.deepcopy(ARCHITECTURES[name]), attn_implementation=attention).eval()
        for attention in ("eager", PACKED_SDPA)
    )
    packed.load_state_dict(alone.state_dict())
    examples, weights = [], (0.0, 0.0, 1.0)
    for length, prefix in ((9, 6), (5, 1), (7, 4)):  # targets begin one token after the prefix
        segments = np.array([0] + [1] * prefix + [2] * (length - prefix - 1))
        examples.append((torch.randint(0, 64, (length,)).numpy(), segments))
    prefix, rest = split_before_targets(pack(examples, weights, observe_all=False))
    assert (prefix.example_lengths, rest.example_lengths) == ((6, 1, 4), (3, 4, 3))
    memory = PrefixMemory()
    call = {"attention_mask": None, "use_cache": False}
    with torch.no_grad():
        packed(
            input_ids=prefix.input_ids,
            position_ids=prefix.position_ids,
            example_lengths=prefix.example_lengths,
            remember=memory,
            **call,
        )
    logits = packed(
        input_ids=rest.input_ids,
        position_ids=rest.position_ids,
        example_lengths=rest.example_lengths,
        logits_to_keep=rest.kept_positions,
        recall=memory,
        **call,
    ).logits[0]
    expected = []
    for (ids, _), before in zip(examples, prefix.example_lengths, strict=True):
        row = torch.from_numpy(ids)[None]
        with torch.no_grad():
            cache = alone(input_ids=row[:, :before], use_cache=True).past_key_values
        expected.append(alone(input_ids=row[:, before:], past_key_values=cache).logits[0, :-1])
    torch.testing.assert_close(logits, torch.cat(expected), atol=2e-6, rtol=1e-4)
    for model, outcome in ((packed, logits), (alone, torch.cat(expected))):
        torch.nn.functional.cross_entropy(outcome, rest.targets).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    for ours, theirs in zip(packed.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-6, rtol=1e-4)


def test_nothing_before_a_target_is_no_prefix():
    prefix, rest = split_before_targets(dummy_row())
    assert prefix is None
    assert rest.example_lengths == (1,)
    row = pack([(np.arange(3), np.array([0, 2, 2])), (np.arange(4), np.array([0, 1, 2, 2]))], (0.0, 0.0, 1.0), False)
    prefix, rest = split_before_targets(row)
    assert (prefix.example_lengths, rest.example_lengths) == ((0, 1), (3, 3))
    assert rest.position_ids.tolist() == [[0, 1, 2, 1, 2, 3]]
