"""What one core of this machine reaches while the other ranks' cores work too, for the capacity planner."""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from sftkey_dist.capacity import Accelerator
from sftkey_dist.capacity.counted import MovedBytes
from sftkey_dist.capacity.hardware import NETWORK_EFFICIENCY
from tests.distributed.harness import run_ranks

ROW_TOKENS, EXAMPLE_TOKENS = 2048, 160
WIDTH, INNER_WIDTH, HEADS, HEAD_DIM, LAYERS = 640, 1920, 10, 64, 12
BUCKET_ELEMENTS = 20_000_000
SECONDS = 5.0


def this_machine(ranks: int) -> Accelerator:
    """One rank's share of it, when so many processes work at the same time, each on one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        run_ranks(ranks, _measure, Path(scratch))
        measured = [json.loads(file.read_text()) for file in Path(scratch).iterdir()]
    products, attention, moved, received = (statistics.mean(rates) for rates in zip(*measured, strict=True))
    return Accelerator(
        "cpu",
        memory_gib=12,
        peak_tflops=products / 1e12,
        memory_gb_per_second=moved / 1e9,
        link_gb_per_second=received / NETWORK_EFFICIENCY / 1e9,
        product_efficiency=1.0,
        attention_efficiency=attention / products,
        process_gib=0.0,
        compute_bytes=4,
        overlaps_communication=False,
    )


def _measure(folder: Path) -> None:
    """FLOP/s of products and of attention, bytes/s of what else a layer does, and of reduced gradients received."""
    rates = [_products(), _attention(), _elementwise(), _reduction()]
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(rates))


def _products() -> float:
    """The gated projections of layers one after another, none of which finds its operands in a cache."""
    layers = itertools.cycle([(_random(ROW_TOKENS, WIDTH), _random(INNER_WIDTH, WIDTH)) for _ in range(LAYERS)])

    def work() -> None:
        rows, weight = next(layers)
        _both_passes(F.linear(rows, weight), rows, weight)

    return 6 * ROW_TOKENS * WIDTH * INNER_WIDTH / _median_seconds(work)


def _attention() -> float:
    """Examples of a packed row, one after another, as `training/forward/attention.py` does them."""
    query, key, value = (_random(1, HEADS, EXAMPLE_TOKENS, HEAD_DIM) for _ in range(3))
    seconds = _median_seconds(
        lambda: _both_passes(F.scaled_dot_product_attention(query, key, value, is_causal=True), query, key, value)
    )
    return 6 * HEADS * HEAD_DIM * EXAMPLE_TOKENS**2 / seconds


def _elementwise() -> float:
    """Norms, gates and residuals of layers one after another."""
    layers = itertools.cycle([[_random(ROW_TOKENS, WIDTH) for _ in range(3)] for _ in range(LAYERS)])
    scale = _random(WIDTH)

    def work() -> None:
        residual, gate, up = next(layers)
        normed = scale * (residual * torch.rsqrt(residual.pow(2).mean(-1, keepdim=True) + 1e-6))
        _both_passes(residual + F.silu(gate) * up + normed, residual, gate, up, scale)

    with MovedBytes() as moved:
        work()
    return moved.total / _median_seconds(work)


def _reduction() -> float:
    """A bucket of gradients, reduced and scattered."""
    bucket, ranks = torch.randn(BUCKET_ELEMENTS), dist.get_world_size()
    share, seconds = bucket.new_empty(BUCKET_ELEMENTS // ranks), []
    for _ in range(10):
        dist.barrier()
        started = time.perf_counter()
        dist.reduce_scatter_tensor(share, bucket)
        seconds.append(time.perf_counter() - started)
    return 4 * BUCKET_ELEMENTS * (ranks - 1) / ranks / statistics.median(seconds)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def _both_passes(output: Tensor, *inputs: Tensor) -> None:
    torch.autograd.grad(output, inputs, torch.ones_like(output))


def _median_seconds(work: Callable[[], None]) -> float:
    work()
    seconds, started = [], time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        before = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)
