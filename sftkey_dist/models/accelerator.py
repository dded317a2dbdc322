"""What a process does with the accelerators of its node."""

import os
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


def require_room(model_dir: Path, device: torch.device) -> None:
    """Make sure that a whole model fits on an accelerator beside what is there.

    Raises:
        ModelError: it does not.
    """
    if device.type != "cuda":
        return
    needed = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise ModelError(
            f"{model_dir}: its weights take {needed / _GIB:.1f} GiB and {free / _GIB:.1f} GiB of the accelerator are "
            f"free, and generation needs all of them on one; generate with evaluation.backend=vllm or a server "
            f"(endpoint), and train with validation.guard=null"
        )
