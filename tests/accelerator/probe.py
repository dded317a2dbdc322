"""The machine: what is installed, how fast it is, and what works on it."""

import importlib.metadata
import inspect
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from sftkey_dist.training.checkpoint.shards import HostCopy
from tests.accelerator.ranks import on_ranks, this_device

PACKAGES = ("torch", "deepspeed", "transformers", "peft", "accelerate", "datasets", "pydantic", "numpy")
_GEMM_SIZE = {"cuda": 8192, "cpu": 512}
_COPY_BYTES = {"cuda": 4 * 2**30, "cpu": 2**26}


def measure(scratch: Path, *, tiny: bool) -> dict[str, Any]:
    """Versions, rates, and whether gloo takes tensors of the accelerator."""
    device = this_device()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "driver": _driver(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if device == "cuda" else None,
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if device == "cuda" else None,
        "bfloat16_tflops": _gemm_tflops(device, torch.bfloat16),
        "float32_tflops": _gemm_tflops(device, torch.float32),
        "copy_gb_per_second": _copy_rate(device),
        "snapshot_gb_per_second": _snapshot_rates(device),
        "varlen_attn": sorted(inspect.signature(varlen_attn).parameters),
        "extensions_compiled_at_import": _compiled_at_import(scratch / "extensions"),
        "gloo_between_two_ranks": on_ranks(2, device, _try_gloo)[0],
    }


def _driver() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _gemm_tflops(device: str, dtype: torch.dtype) -> float:
    size = _GEMM_SIZE[device]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: a @ b, device) / 1e12


def _copy_rate(device: str) -> float:
    """Bytes read and written."""
    source = torch.randn(_COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device) / 1e9


def _snapshot_rates(device: str) -> dict[str, float]:
    """From the device to the host's memory, as checkpoints copy and as a plain copy does; pages are new each time."""
    values = torch.randn(_COPY_BYTES[device] // 8, device=device)
    ways: dict[str, Callable[[], Tensor]] = {
        "through pinned buffers": lambda: HostCopy()(values),
        "plain": lambda: values.to("cpu", copy=True),
    }
    rates = {}
    for name, way in ways.items():
        if not torch.equal(way(), values.cpu()):
            raise AssertionError(f"the copy {name} is not what was copied")
        rates[name] = values.nbytes / _seconds(way, device, repeats=3) / 1e9
    return rates


def _seconds(work: Any, device: str, repeats: int = 10) -> float:
    for _ in range(3):
        work()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize(device)
    return (time.perf_counter() - started) / repeats


def synchronize(device: str) -> None:
    """Wait for what is queued on an accelerator."""
    if device == "cuda":
        torch.cuda.synchronize()


def _compiled_at_import(folder: Path) -> list[str]:
    """What importing the engine compiles: nothing, on a machine without a compiler it could not."""
    folder.mkdir()
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", "import sftkey_dist.training.engine.factory"], env=environment, check=True)
    return sorted(path.name for path in folder.rglob("*"))


def _try_gloo() -> dict[str, str]:
    """Each collective of ZeRO-3 and of sequence parallelism, in both precisions: "right", or what went wrong."""
    device, found = this_device(), dict[str, str]()
    for dtype in (torch.float32, torch.bfloat16):
        for name, outcome in _try_collectives(device, dtype).items():
            found[f"{name}, {str(dtype).removeprefix('torch.')}"] = outcome
    return found


def _try_collectives(device: str, dtype: torch.dtype) -> dict[str, str]:
    rank = dist.get_rank()
    mine, both = (torch.full((n,), float(rank + 1), device=device, dtype=dtype) for n in (4, 8))
    whole, part, summed, sent, swapped = (torch.empty_like(one) for one in (both, mine, mine, mine, both))
    summed.copy_(mine)
    sent.copy_(mine)
    attempts = {
        "all_gather_into_tensor": (lambda: dist.all_gather_into_tensor(whole, mine), lambda: whole.sum() == 12),
        "reduce_scatter_tensor": (lambda: dist.reduce_scatter_tensor(part, both), lambda: part.sum() == 12),
        "all_reduce": (lambda: dist.all_reduce(summed), lambda: summed.sum() == 12),
        "broadcast": (lambda: dist.broadcast(sent, 0), lambda: sent.sum() == 4),
        "all_to_all_single": (lambda: dist.all_to_all_single(swapped, both), lambda: swapped.sum() == 12),
    }
    found = {}
    for name, (attempt, is_right) in attempts.items():
        try:
            attempt()
            found[name] = "right" if bool(is_right()) else "wrong values"
        except (RuntimeError, ValueError, NotImplementedError) as error:
            found[name] = " ".join(str(error).split())[:200]
    return found
