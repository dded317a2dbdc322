"""The ranks of a process group, and what they tell each other."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.engine.store_collectives import StoreCollectives
from sftkey_dist.training.forward.collate import PackedRow, part_of
from sftkey_dist.training.forward.sequence_group import SequenceGroup

T = TypeVar("T")


class Ranks:
    """This process among all others; every method is called on all ranks together.

    Attributes:
        rank: of this process.
        world_size: number of processes.
        data_rank: which of the `data_ranks` shares of a step this process computes.
        data_ranks: number of ranks that get different rows.
        device: the device that this process computes on.
        store_collectives: where ranks wait for what takes long.
        sequence_group: the ranks that compute the rows of this one's `data_rank` together.
    """

    def __init__(self, device: torch.device, training: TrainingConfig) -> None:
        """
        Args:
            device: the device that this process computes on.
            training: says how many ranks compute a row together, and how long ranks wait for each other.
        """
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.sequence_group = SequenceGroup(training.sequence_parallel_ranks, training.collective_timeout_seconds)
        self.data_rank = self.rank // self.sequence_group.size
        self.data_ranks = self.world_size // self.sequence_group.size
        self.device, self.store_collectives = device, StoreCollectives(training.storage_timeout_seconds)

    def place(self, row: PackedRow) -> PackedRow:
        """See Engine."""
        return part_of(row, self.sequence_group.rank, self.sequence_group.size).to(self.device)

    def gather_parts(self, row: PackedRow, values: Tensor) -> Tensor:
        """See Engine."""
        return self.sequence_group.gather(values if row.has_targets else values[:0])

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
        self.store_collectives.after_first_rank()
