"""Attention over a packed row: one launch, example by example, or a dense mask."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sftkey_dist.models.accelerator import without_cudnn_attention
from sftkey_dist.training.forward.attention import has_variable_length_kernel, packed_causal_attention
from tests.accelerator.probe import synchronize
from tests.accelerator.ranks import this_device

HEADS, KV_HEADS, HEAD_DIM, ROW_TOKENS = 32, 8, 128, 8192
TINY = {"heads": 4, "kv_heads": 2, "head_dim": 16, "row_tokens": 256}
EXAMPLE_TOKENS = (60, 180, 4096)
REPEATS = 20


def measure(scratch: Path, *, tiny: bool) -> dict[str, Any]:
    """Milliseconds of one layer's forward and backward pass, and the share of it that the host is busy launching."""
    del scratch
    without_cudnn_attention()  # as the trainer
    heads, kv_heads, head_dim, row_tokens = TINY.values() if tiny else (HEADS, KV_HEADS, HEAD_DIM, ROW_TOKENS)
    rows = []
    for length in EXAMPLE_TOKENS:
        length = min(length, row_tokens)
        lengths = (length,) * (row_tokens // length)
        row = _Row(lengths, heads, kv_heads, head_dim)
        rows.append({"example_tokens": length, "examples": len(lengths), **row.measure(3 if tiny else REPEATS)})
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "row_tokens": row_tokens, "rows": rows}


class _Row:
    """Queries, keys and values of a packed row."""

    def __init__(self, lengths: tuple[int, ...], heads: int, kv_heads: int, head_dim: int) -> None:
        torch.manual_seed(0)
        self._device, self._lengths = this_device(), lengths
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        # As projections leave them: [1, T, H, D] in memory.
        self._operands = [
            torch.randn(1, sum(lengths), number, head_dim, device=self._device, dtype=dtype)
            .transpose(1, 2)
            .requires_grad_()
            for number in (heads, kv_heads, kv_heads)
        ]
        ends = torch.tensor((0, *lengths)).cumsum(0).to(torch.int32).to(self._device)
        self._ways: dict[str, Callable[..., Tensor]] = {
            "loop": lambda q, k, v: self._packed(q, k, v, None),
            "dense": self._dense(),
        }
        if has_variable_length_kernel(self._operands[0]):
            self._ways["one_launch"] = lambda q, k, v: self._packed(q, k, v, ends)

    def measure(self, repeats: int) -> dict[str, Any]:
        expected = self._gradients(self._ways["loop"], torch.float64)
        found: dict[str, Any] = {}
        for name, way in self._ways.items():
            seconds, host = self._seconds(way, repeats)
            found[name] = {
                "ms": 1e3 * seconds,
                "host_share": host / seconds,
                "error": max(_relative(a, b) for a, b in zip(self._gradients(way), expected, strict=True)),
            }
        return found

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, ends: Tensor | None) -> Tensor:
        module = torch.nn.Identity()
        return packed_causal_attention(
            module, query, key, value, None, example_lengths=self._lengths, cu_seq_lens=ends
        )[0]

    def _dense(self) -> Callable[..., Tensor]:
        """A mask [T, T] that a model builds once for all of its layers."""
        example = torch.repeat_interleave(
            torch.arange(len(self._lengths), device=self._device), torch.tensor(self._lengths, device=self._device)
        )
        mask = (example[:, None] == example[None, :]).tril()
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    def _gradients(self, way: Callable[..., Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
        """Output and gradients for a fixed gradient of the output, on the CPU where a precision is asked for."""
        operands = [x.detach().to(dtype or x.dtype).requires_grad_() for x in self._operands]
        output = way(*operands)
        torch.manual_seed(1)
        direction = torch.randn(output.shape, device=self._device).to(output.dtype)
        return [output.detach(), *torch.autograd.grad(output, operands, direction)]

    def _seconds(self, way: Callable[..., Tensor], repeats: int) -> tuple[float, float]:
        """Of both passes; and until the host had launched them."""

        def work() -> None:
            output = way(*self._operands)
            torch.autograd.grad(output, self._operands, torch.ones_like(output))

        for _ in range(3):
            work()
        synchronize(self._device)
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        launched = time.perf_counter()
        synchronize(self._device)
        return (time.perf_counter() - started) / repeats, (launched - started) / repeats


def _relative(found: Tensor, expected: Tensor) -> float:
    difference = (found.double() - expected.double()).norm() / expected.double().norm()
    return float(difference)
