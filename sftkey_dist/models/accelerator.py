"""Use of the accelerators of a node by a process."""

import gc
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sftkey_dist.errors import ModelError
from sftkey_dist.models.weight_files import weight_files

_GIB = 2**30


def hide_unless_reserved(num_gpus: int) -> None:
    """Hide all accelerators from this process if it has reserved none. Call it before torch first looks for them.

    Ray (2.60, _private/utils.py) lets an actor that has requested no accelerator see all of them.
    """
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def without_cudnn_attention() -> None:
    """Turn the cuDNN kernels of torch's attention off.

    On Hopper and Blackwell torch prefers cuDNN, which builds a plan for every new length, in tens of milliseconds, and
    caches all of them. Here nearly every example, and every generated token, has a new length.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def require_room(model_dir: Path, devices: Sequence[torch.device]) -> None:
    """Check that a whole model fits into the free memory of accelerators.

    Raises:
        ModelError: It does not fit.
    """
    if not devices:
        return
    release_cached_memory()
    needed = weights_bytes_in(model_dir)
    free = sum(map(_free_bytes, devices))
    if needed > free:
        raise ModelError(
            f"{model_dir}: its weights take {needed / _GIB:.1f} GiB, but only {free / _GIB:.1f} GiB are free on "
            f"{len(devices)} accelerator{'s' if len(devices) > 1 else ''}; spread a model over more with "
            f"gpus_per_model of the evaluation or the judge, or generate with a server (evaluation.backend=endpoint), "
            f"and train with validation.guard=null"
        )


def weights_bytes_in(model_dir: Path) -> int:
    """Size of the weights in a model's folder."""
    return sum(file.stat().st_size for file in weight_files(model_dir))


def release_cached_memory() -> None:
    """Release the memory that a deleted model has left in torch's cache; needed between two models in one process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free_bytes(device: torch.device) -> int:
    """Free memory of a device, including the unused part of torch's cache, which this process can use too."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


@dataclass(frozen=True)
class Device:
    """An accelerator as its driver describes it."""

    name: str
    memory_gib: float
    driver: str


def node_devices() -> list[Device]:
    """The accelerators of this machine, queried without using their memory; empty if no driver answers."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    fields = [[field.strip() for field in line.split(",")] for line in lines if line.count(",") == 2]
    return [Device(name, float(mebibytes) / 1024, driver) for name, mebibytes, driver in fields]
