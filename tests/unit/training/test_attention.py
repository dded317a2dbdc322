"""Packed causal attention against a dense masked softmax written out."""

import copy
import inspect

import numpy as np
import pytest
import torch
import transformers
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from sftkey_dist.errors import ModelError
from sftkey_dist.training.forward import attention
from sftkey_dist.training.forward.attention import (
    PACKED,
    PrefixCache,
    has_variable_length_kernel,
    packed_causal_attention,
    register_packed_attention,
)
from sftkey_dist.training.forward.collate import dummy_row, pack, split_before_targets

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

# The scores of these are changed before or in the softmax.
BEYOND_SDPA = {
    "gemma2": Gemma2Config(**SIZES, head_dim=8, query_pre_attn_scalar=8, sliding_window=4, attn_logit_softcapping=0.5),
    "gpt-oss": GptOssConfig(**SIZES, head_dim=8, sliding_window=4, num_local_experts=4, num_experts_per_tok=2),
}
EVERY_ARCHITECTURE = ARCHITECTURES | BEYOND_SDPA


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


@pytest.mark.parametrize("num_queries", [37, 20])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_scores_in_blocks_of_queries_give_the_same_and_keep_no_square(
    num_queries, window, dtype, tolerance, monkeypatch
):
    torch.manual_seed(0)
    shapes = ((1, 4, num_queries, 8), (1, 2, 37, 8), (1, 2, 37, 8), (4,))
    operands = [torch.randn(shape).to(dtype) for shape in shapes]
    expected, output = (
        with_gradients(whole, operands, window) for whole in (attention._by_scores, attention._in_blocks)
    )
    torch.testing.assert_close(output, expected)
    monkeypatch.setattr(attention, "_MIN_QUERIES", 4)
    monkeypatch.setattr(attention, "_MAX_BYTES_OF_SCORES", 4 * 4 * 37 * 8)  # eight queries
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        in_blocks = with_gradients(attention._in_blocks, operands, window)
    torch.testing.assert_close(in_blocks, expected, atol=tolerance, rtol=10 * tolerance)
    assert not any(shape[-1] > 8 for shape in kept), "no scores outlive their block"


def with_gradients(attend, operands, window):
    query, key, value, sinks = (x.clone().requires_grad_() for x in operands)
    output = attend(query, key, value, scaling=0.3, dropout=0.0, sliding_window=window, sinks=sinks, softcap=2.0)
    output.square().sum().backward()
    return [output.detach(), query.grad, key.grad, value.grad, sinks.grad]


def plain_varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """`torch.nn.attention.varlen.varlen_attn` from its documentation, for devices without its kernel."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    lengths = cu_seq_q.diff()
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert max_q == max_k == int(lengths.max())
    assert enable_gqa == (query.shape[1] != key.shape[1])
    groups = query.shape[1] // key.shape[1]
    outputs = []
    for begin, end in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        q = query[begin:end]
        k, v = (x[begin:end].repeat_interleave(groups, dim=1) for x in (key, value))
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        distance = torch.arange(end - begin)[:, None] - torch.arange(end - begin)[None, :]
        left, right = window_size
        hidden = -distance > right if right >= 0 else torch.zeros_like(distance, dtype=torch.bool)
        if left >= 0:
            hidden |= distance > left
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v))
    return torch.cat(outputs)


@pytest.fixture
def varlen_kernel(monkeypatch):
    """Launches of the variable-length kernel, which this device is made to have."""
    launches = []

    def kernel(*arguments, **options):
        launches.append(options)
        return plain_varlen_attn(*arguments, **options)

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    monkeypatch.setattr(attention, "has_variable_length_kernel", lambda query, dropout=0.0: True)
    return launches


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_launch_a_layer_gives_the_logits_and_gradients_of_the_loop(name, varlen_kernel):
    transformers.set_seed(0)
    register_packed_attention()
    model = AutoModelForCausalLM.from_config(copy.deepcopy(ARCHITECTURES[name]), attn_implementation=PACKED).eval()
    row = pack([(np.random.default_rng(n).integers(0, 64, n), np.ones(n, int)) for n in LENGTHS], (0.0, 1.0), False)
    results = {}
    for way, boundaries in (("loop", {}), ("launch", {"cu_seq_lens": row.cu_seq_lens})):
        model.zero_grad()
        logits = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=None,
            use_cache=False,
            example_lengths=row.example_lengths,
            **boundaries,
        ).logits
        logits.logsumexp(-1).sum().backward()
        results[way] = (logits.detach(), [p.grad.clone() for p in model.parameters()])
    assert len(varlen_kernel) == model.config.num_hidden_layers, "one launch a layer, none from the loop"
    torch.testing.assert_close(results["launch"], results["loop"], atol=2e-6, rtol=1e-4)


def test_a_kept_or_recalled_prefix_goes_example_by_example(varlen_kernel):
    x = torch.randn(1, 2, sum(LENGTHS), 8)
    ends = torch.tensor((0, *LENGTHS)).cumsum(0).to(torch.int32)
    for memory in ({"write_cache": PrefixCache()}, {}):
        packed_causal_attention(torch.nn.Identity(), x, x, x, None, example_lengths=LENGTHS, cu_seq_lens=ends, **memory)
    assert len(varlen_kernel) == 1


def test_the_kernel_is_for_accelerators_in_half_precision_alone():
    assert not has_variable_length_kernel(torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16))
    documented = inspect.signature(varlen_attn).parameters
    assert {"cu_seq_q", "cu_seq_k", "max_q", "max_k", "scale", "window_size", "enable_gqa"} <= set(documented)


def test_a_mask_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="example_lengths"):
        packed_causal_attention(torch.nn.Identity(), q, q, q, torch.ones(1), example_lengths=(2,))


def test_what_would_be_ignored_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ModelError, match="with position_bias, which packed attention does not compute"):
        packed_causal_attention(torch.nn.Identity(), q, q, q, None, example_lengths=(2,), position_bias=q, use_cache=1)


@pytest.mark.parametrize("name", EVERY_ARCHITECTURE)
def test_packed_row_gives_every_example_the_logits_it_has_alone(name):
    transformers.set_seed(0)
    register_packed_attention()
    alone, packed = (
        AutoModelForCausalLM.from_config(
            copy.deepcopy(EVERY_ARCHITECTURE[name]), attn_implementation=implementation
        ).eval()
        for implementation in ("eager", PACKED)
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
        AutoModelForCausalLM.from_config(copy.deepcopy(ARCHITECTURES[name]), attn_implementation=implementation).eval()
        for implementation in ("eager", PACKED)
    )
    packed.load_state_dict(alone.state_dict())
    examples, weights = [], (0.0, 0.0, 1.0)
    for length, before in ((9, 6), (5, 1), (7, 4)):  # targets begin one token after the prefix
        segments = np.array([0] + [1] * before + [2] * (length - before - 1))
        examples.append((torch.randint(0, 64, (length,)).numpy(), segments))
    prefix, rest = split_before_targets(pack(examples, weights, observe_all=False))
    assert (prefix.example_lengths, rest.example_lengths) == ((6, 1, 4), (3, 4, 3))
    memory = PrefixCache()
    call = {"attention_mask": None, "use_cache": False}
    with torch.no_grad():
        packed(
            input_ids=prefix.input_ids,
            position_ids=prefix.position_ids,
            example_lengths=prefix.example_lengths,
            write_cache=memory,
            **call,
        )
    logits = packed(
        input_ids=rest.input_ids,
        position_ids=rest.position_ids,
        example_lengths=rest.example_lengths,
        logits_to_keep=rest.kept_positions,
        read_cache=memory,
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


def test_values_of_smaller_heads_are_padded_for_the_kernel_and_cut_off_again(monkeypatch):
    """Latent attention has queries and keys of 192 and values of 128; the kernel takes one size."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 5, 24, generator=generator) for _ in range(2))
    value = torch.randn(1, 2, 5, 16, generator=generator)

    def kernel(queries, keys, values, *_, scale, **__):
        assert queries.shape == keys.shape == values.shape
        whole = [x.transpose(0, 1)[None] for x in (queries, keys, values)]
        return sdpa(*whole, is_causal=True, scale=scale)[0].transpose(0, 1)

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    attended = attention._in_one_launch(query, key, value, torch.tensor([0, 5]), 5, 0.2, None)
    expected = sdpa(query, key, value, is_causal=True, scale=0.2).transpose(1, 2)
    assert torch.allclose(attended, expected, atol=1e-6)
