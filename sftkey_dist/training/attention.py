"""Attention over packed rows without a T x T mask: causal SDPA, example by example.

Registered with transformers' ``AttentionInterface`` under a name that has no mask function, so that the model
builds no mask at all (transformers/masking_utils.py, ``_preprocess_mask_arguments``); the boundaries come with the
call instead.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

PACKED_SDPA = "packed_causal_sdpa"


@dataclass
class PrefixMemory:
    """Keys and values of what comes before each example's trained part, computed without gradient.

    Attributes:
        layers: by layer index, (key, value) of each example: [1, H_kv, P, D], P = 0 where nothing comes before.
    """

    layers: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)


def register_packed_attention() -> None:
    """Make ``attn_implementation=PACKED_SDPA`` known to transformers."""
    AttentionInterface.register(PACKED_SDPA, packed_causal_attention)


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
    sliding_window: int | None = None,
    remember: PrefixMemory | None = None,
    recall: PrefixMemory | None = None,
    **_: Any,
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
        sliding_window: tokens a query sees, itself included; None for all.
        remember: where to keep the examples' keys and values.
        recall: keys and values that stand before the examples'.

    Returns:
        [1, T, H, D] and None for the attention weights.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes boundaries from example_lengths, not from a mask")
    grouped_query = query.shape[1] != key.shape[1]
    queries, keys, values = (x.split(list(example_lengths), dim=2) for x in (query, key, value))
    layer: Any = getattr(module, "layer_idx", None)
    if remember is not None:
        remember.layers[layer] = list(zip(keys, values, strict=True))
    if recall is not None:
        before = recall.layers[layer]
        keys = tuple(torch.cat([old, new], dim=2) for (old, _), new in zip(before, keys, strict=True))
        values = tuple(torch.cat([old, new], dim=2) for (_, old), new in zip(before, values, strict=True))
    outputs = [
        F.scaled_dot_product_attention(
            q,
            k,
            v,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=grouped_query,
            **_causality(q.shape[2], k, sliding_window),
        )
        for q, k, v in zip(queries, keys, values, strict=True)
        if q.shape[2]
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _causality(num_queries: int, key: Tensor, sliding_window: int | None) -> dict[str, Any]:
    """The queries are the last of the keys' positions."""
    length = key.shape[2]
    if num_queries == length and (sliding_window is None or length <= sliding_window):
        return {"is_causal": True}
    positions = torch.arange(length, device=key.device)
    distance = positions[-num_queries:, None] - positions[None, :]
    return {"attn_mask": (distance >= 0) & (distance < (sliding_window or length))}
