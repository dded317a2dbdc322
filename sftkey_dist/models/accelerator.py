"""What a process does with the accelerators of its node."""

import gc
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sftkey_dist.errors import ModelError

_GIB = 2**30


def hide_unless_reserved(num_gpus: int) -> None:
    """Leave accelerators to those who reserved them; before torch first looks for one.

    Ray (2.60, _private/utils.py) lets an actor that asked for none see all of them.
    """
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def without_cudnn_attention() -> None:
    """Have torch's attention use its other kernels.

    On Hopper and Blackwell torch prefers cuDNN, which builds a plan for every new length, tens of milliseconds each,
    and keeps them all. Here nearly every example, and every token that is generated, is a new length.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def require_room(model_dir: Path, devices: Sequence[torch.device]) -> None:
    """Make sure that a whole model fits on accelerators beside what is there.

    Raises:
        ModelError: it does not.
    """
    if not devices:
        return
    release_cached_memory()
    needed = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    free = sum(map(_free_bytes, devices))
    if needed > free:
        raise ModelError(
            f"{model_dir}: its weights take {needed / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB are free on "
            f"{len(devices)} accelerator{'s' if len(devices) > 1 else ''}; spread a model over more with "
            f"evaluation.gpus_per_model, or generate with a server (evaluation.backend=endpoint), and train with "
            f"validation.guard=null"
        )


def release_cached_memory() -> None:
    """Give back what a model that is gone has left in torch's cache; between two models in one process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _free_bytes(device: torch.device) -> int:
    """What torch keeps in its cache without using it is free to this process too."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


@dataclass(frozen=True)
class Device:
    """An accelerator as its driver describes it."""

    name: str
    memory_gib: float
    driver: str


def node_devices() -> list[Device]:
    """The accelerators of this machine, without taking any of their memory; none where no driver answers."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    fields = [[field.strip() for field in line.split(",")] for line in lines if line.count(",") == 2]
    return [Device(name, float(mebibytes) / 1024, driver) for name, mebibytes, driver in fields]
