"""The ranks of a process group, and what they tell each other."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sftkey_dist.training.meeting import Meeting

T = TypeVar("T")


class Ranks:
    """This process among all others; every method is called on all ranks together.

    Attributes:
        rank: of this process.
        world_size: number of processes.
        data_rank: which of the `data_ranks` shares of a step this process computes.
        data_ranks: number of ranks that get different rows.
        device: the device that this process computes on.
        meeting: where ranks wait for what takes long.
    """

    def __init__(self, device: torch.device, timeout_seconds: float) -> None:
        """
        Args:
            device: the device that this process computes on.
            timeout_seconds: longest wait for a rank that reads or writes.
        """
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.data_rank, self.data_ranks = self.rank, self.world_size
        self.device, self.meeting = device, Meeting(timeout_seconds)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """See Engine."""
        reduced = values.to(self.device)
        dist.all_reduce(reduced)
        return reduced.cpu()

    def gather_to_all(self, value: T) -> list[T]:
        """See Engine."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wait_for_first_rank(self) -> None:
        """See Engine."""
        self.meeting.after_first_rank()
