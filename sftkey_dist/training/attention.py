"""Attention over packed rows without a T x T mask.

On an accelerator in half precision torch's variable-length FlashAttention computes a whole row in one launch; elsewhere
causal SDPA goes example by example. Registered with transformers' ``AttentionInterface`` under a name that has no mask
function, so that the model builds no mask at all (transformers/masking_utils.py, ``_preprocess_mask_arguments``); the
boundaries come with the call instead.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

PACKED = "packed_causal"
_LARGEST_HEAD_DIM, _HEAD_DIM_MULTIPLE = 256, 8
"""Head sizes that FlashAttention's kernels take."""
_GROUPS_BY_REQUEST = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""torch 2.11 accepts fewer key than query heads without a flag; later releases need one."""
_FIRST_CAPABILITY = 8
"""Compute capability of the first devices that have these kernels (Ampere)."""


@dataclass
class PrefixMemory:
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
    remember: PrefixMemory | None = None,
    recall: PrefixMemory | None = None,
    **_: object,
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
        remember: where to keep the examples' keys and values.
        recall: keys and values that stand before the examples'.

    Returns:
        [1, T, H, D] and None for the attention weights.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes boundaries from example_lengths, not from a mask")
    if cu_seq_lens is not None and remember is recall is None and has_variable_length_kernel(query, dropout):
        return _in_one_launch(query, key, value, cu_seq_lens, max(example_lengths), scaling, sliding_window), None
    queries, keys, values = (x.split(list(example_lengths), dim=2) for x in (query, key, value))
    layer: Any = getattr(module, "layer_idx", None)
    if remember is not None:
        remember.layers[layer] = list(zip(keys, values, strict=True))
    if recall is not None:
        keys, values = _behind(recall.layers[layer], keys, values)
    outputs = [
        F.scaled_dot_product_attention(
            q,
            k,
            v,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=query.shape[1] != key.shape[1],
            **_causality(q.shape[2], k, sliding_window),
        )
        for q, k, v in zip(queries, keys, values, strict=True)
        if q.shape[2]
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


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


def _behind(
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
    """[1, T, H, D]; a window of (W - 1, 0) is W tokens with the query itself, (-1, 0) all before it."""
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
    in_row: Tensor = output[None]
    return in_row


def _causality(num_queries: int, key: Tensor, sliding_window: int | None) -> dict[str, Any]:
    """The queries are the last of the keys' positions."""
    length = key.shape[2]
    if num_queries == length and (sliding_window is None or length <= sliding_window):
        return {"is_causal": True}
    positions = torch.arange(length, device=key.device)
    distance = positions[-num_queries:, None] - positions[None, :]
    return {"attn_mask": (distance >= 0) & (distance < (sliding_window or length))}
