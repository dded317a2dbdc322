"""What autograd keeps for a backward pass."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def storages_kept(forward: Callable[[], T]) -> tuple[T, dict[int, torch.UntypedStorage]]:
    """What ``forward`` returns, and by address the storages, each once, that its graph keeps."""
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        return forward(), kept
