"""Attention over packed rows without a T x T mask.

On an accelerator in half precision torch's variable-length FlashAttention computes a whole row in one launch; elsewhere
causal SDPA goes example by example. Registered with transformers' ``AttentionInterface`` under a name that has no mask
function, so that the model builds no mask at all (transformers/masking_utils.py, ``_preprocess_mask_arguments``); the
boundaries come with the call instead.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from sftkey_dist.errors import ModelError

if TYPE_CHECKING:
    from sftkey_dist.training.forward.sequence_group import SequenceGroup

PACKED = "packed_causal"
_LARGEST_HEAD_DIM, _HEAD_DIM_MULTIPLE = 256, 8
"""Head sizes that FlashAttention's kernels take."""
_GROUPS_BY_REQUEST = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""torch 2.11 accepts fewer key than query heads without a flag; later releases need one."""
_NOT_COMPUTED = ("position_bias", "indices", "block_indices", "sinks", "head_mask")
"""Arguments with which architectures of transformers change the result of attention."""
_MAX_BYTES_OF_SCORES, _MIN_QUERIES = 2**28, 64
"""Size of the scores that are computed at a time, and the least number of queries, as each block costs launches."""
_FIRST_CAPABILITY = 8
"""Compute capability of the first devices that have these kernels (Ampere)."""


@dataclass
class PrefixCache:
    """Keys and values of what comes before each example's trained part, computed without gradient.

    Attributes:
        layers: by layer index, (key, value) of each example: [1, H_kv, P, D], P = 0 where nothing comes before.
    """

    layers: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)


def register_packed_attention() -> None:
    """Make ``attn_implementation=PACKED`` known to transformers."""
    AttentionInterface.register(PACKED, packed_causal_attention)


def packed_causal_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    example_lengths: tuple[int, ...],
    cu_seq_lens: Tensor | None = None,
    sliding_window: int | None = None,
    write_cache: PrefixCache | None = None,
    read_cache: PrefixCache | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    sequence_group: "SequenceGroup | None" = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Causal attention within each example.

    Args:
        module: the attention layer.
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D].
        attention_mask: must be None; boundaries come from ``example_lengths``.
        scaling: softmax scale, default 1/sqrt(D).
        dropout: attention dropout.
        example_lengths: tokens of each example, summing to T.
        cu_seq_lens: int32 [N + 1], where examples begin and the last one ends, on the device of the query; allows the
            variable-length kernel where there is one.
        sliding_window: tokens a query sees, itself included; None for all.
        write_cache: where to keep the examples' keys and values.
        read_cache: keys and values that stand before the examples'.
        s_aux: attention sinks [H], logits of a key without a value, as in gpt-oss.
        softcap: bound of the scores before the softmax, as in Gemma 2.
        sequence_group: ranks that hold the other parts of the row, if queries, keys and values are those of a part; T
            is then the number of its tokens, and ``example_lengths`` are those of the whole row.

    Returns:
        [1, T, H, D] and None for the attention weights.

    Raises:
        ModelError: The model's attention takes something else that changes its result.
    """
    _refuse_what_is_not_computed(module, attention_mask, others)
    if sequence_group is not None:
        query, key, value = sequence_group.gather_tokens_scatter_heads(query, key, value)
        s_aux = None if s_aux is None else s_aux.chunk(sequence_group.size)[sequence_group.rank]
    is_plain = s_aux is None and softcap is None
    may_launch = is_plain and write_cache is read_cache is None and has_variable_length_kernel(query, dropout)
    if may_launch and cu_seq_lens is not None:
        attended = _in_one_launch(query, key, value, cu_seq_lens, max(example_lengths), scaling, sliding_window)
    else:
        attend = _by_sdpa if is_plain else partial(_in_blocks, sinks=s_aux, softcap=softcap)
        attend = partial(attend, scaling=scaling, dropout=dropout, sliding_window=sliding_window)
        layer: Any = getattr(module, "layer_idx", None)
        attended = _one_by_one(attend, query, key, value, example_lengths, layer, write_cache, read_cache)
    return (attended if sequence_group is None else sequence_group.gather_heads_scatter_tokens(attended)), None


def has_variable_length_kernel(query: Tensor, dropout: float = 0.0) -> bool:
    """Whether torch's variable-length FlashAttention can take the query [1, H, T, D]."""
    head_dim = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and dropout == 0.0
        and head_dim <= _LARGEST_HEAD_DIM
        and head_dim % _HEAD_DIM_MULTIPLE == 0
        and torch.cuda.get_device_capability(query.device)[0] >= _FIRST_CAPABILITY
    )


def _one_by_one(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    example_lengths: Sequence[int],
    layer: int,
    write_cache: PrefixCache | None,
    read_cache: PrefixCache | None,
) -> Tensor:
    """[1, T, H, D]: what ``attend`` computes of each example's queries, keys and values."""
    queries, keys, values = (x.split(list(example_lengths), dim=2) for x in (query, key, value))
    if write_cache is not None:
        write_cache.layers[layer] = list(zip(keys, values, strict=True))
    if read_cache is not None:
        keys, values = _with_prefix(read_cache.layers[layer], keys, values)
    outputs = [attend(q, k, v) for q, k, v in zip(queries, keys, values, strict=True) if q.shape[2]]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _with_prefix(
    prefixes: Sequence[tuple[Tensor, Tensor]], keys: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Each example's keys and values with those of its prefix before them."""
    return (
        tuple(torch.cat([old, new], dim=2) for (old, _), new in zip(prefixes, keys, strict=True)),
        tuple(torch.cat([old, new], dim=2) for (_, old), new in zip(prefixes, values, strict=True)),
    )


def _in_one_launch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_lens: Tensor,
    longest: int,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """[1, T, H, D]; a window of (W - 1, 0) is W tokens with the query itself, (-1, 0) all before it.

    The kernel takes heads of one size. Values of smaller heads, as in latent attention, are padded with zeros.
    """
    value_dim = value.shape[-1]
    value = torch.nn.functional.pad(value, (0, query.shape[-1] - value_dim))
    queries, keys, values = (x[0].transpose(0, 1) for x in (query, key, value))
    grouped: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]} if _GROUPS_BY_REQUEST else {}
    output: Any = varlen_attn(
        queries,
        keys,
        values,
        cu_seq_lens,
        cu_seq_lens,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **grouped,
    )
    in_row: Tensor = output[None, ..., :value_dim]
    return in_row


def _refuse_what_is_not_computed(
    module: torch.nn.Module, attention_mask: Tensor | None, arguments: Mapping[str, object]
) -> None:
    """An argument that was ignored would train another model than the one that is served."""
    if attention_mask is not None:
        raise ValueError("packed attention takes boundaries from example_lengths, not from a mask")
    given = [name for name in _NOT_COMPUTED if arguments.get(name) is not None]
    if given:
        raise ModelError(
            f"{type(module).__name__} calls its attention with {given[0]}, which packed attention does not compute; "
            f"set model.attention=sdpa, if the architecture allows it"
        )


def _by_sdpa(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float, sliding_window: int | None
) -> Tensor:
    """[1, H, T, D] of one example, by torch's fused kernels."""
    sees_all = query.shape[2] == key.shape[2] and (sliding_window is None or key.shape[2] <= sliding_window)
    causality = {"is_causal": True} if sees_all else {"attn_mask": _visible(query, key, sliding_window)}
    output: Tensor = F.scaled_dot_product_attention(
        query,
        key,
        value,
        scale=scaling,
        dropout_p=dropout,
        enable_gqa=query.shape[1] != key.shape[1],
        **causality,
    )
    return output


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, *, sliding_window: int | None, **settings: Any) -> Tensor:
    """[1, H, T, D] of one example, a block of queries at a time, with the keys that the block sees.

    The scores of all queries would take memory that is quadratic in T. Those of a block are computed again in the
    backward pass, so that a layer keeps its operands and no scores.
    """
    compute: Callable[..., Tensor] = partial(_by_scores, sliding_window=sliding_window, **settings)
    num_heads, num_queries, num_keys = query.shape[1], query.shape[2], key.shape[2]
    size = _block_of_queries(num_heads, num_keys, sliding_window)
    if num_queries <= size:
        return compute(query, key, value)
    blocks = []
    for start in range(0, num_queries, size):
        end = min(start + size, num_queries)
        last = num_keys - num_queries + end  # the queries are the last of the keys' positions
        first = max(0, last - (end - start) - (sliding_window or num_keys) + 1)
        operands = query[:, :, start:end], key[:, :, first:last], value[:, :, first:last]
        blocks.append(checkpoint(compute, *operands, use_reentrant=False))
    return torch.cat(blocks, dim=2)


def _block_of_queries(num_heads: int, num_keys: int, sliding_window: int | None) -> int:
    """Number of queries whose scores take `_MAX_BYTES_OF_SCORES`; with a window at most as many as it is long."""
    seen = num_keys if sliding_window is None else min(num_keys, 2 * sliding_window)
    size = max(_MIN_QUERIES, _MAX_BYTES_OF_SCORES // (4 * num_heads * seen))
    return size if sliding_window is None else min(size, max(_MIN_QUERIES, sliding_window))


def _by_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    sinks: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """[1, H, T, D] of one example, from its scores [1, H, T, K] in float32, which no fused kernel gives access to."""
    num_groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(num_groups, dim=1) for x in (key, value))
    scores = (query @ key.transpose(2, 3)).float() * (scaling or query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~_visible(query, key, sliding_window), float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)], dim=-1)
    shares = F.dropout(scores.softmax(dim=-1)[..., : key.shape[2]], dropout)
    return shares.to(value.dtype) @ value


def _visible(query: Tensor, key: Tensor, sliding_window: int | None) -> Tensor:
    """[T, K]: which keys a query sees. The queries are the last of the keys' positions."""
    length = key.shape[2]
    positions = torch.arange(length, device=key.device)
    distance = positions[-query.shape[2] :, None] - positions[None, :]
    return (distance >= 0) & (distance < (sliding_window or length))
