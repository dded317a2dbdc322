"""What a stage asks of its engine, whatever shards the model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from sftkey_dist.sampler import CostModel
from sftkey_dist.training.checkpoint import ShardedState
from sftkey_dist.training.engine.store_collectives import StoreCollectives
from sftkey_dist.training.engine.weights import StageWeights
from sftkey_dist.training.forward.collate import PackedRow
from sftkey_dist.training.forward.flops import ModelFlops
from sftkey_dist.training.forward.router import RouterBalance
from sftkey_dist.training.forward.sequence_group import SequenceGroup

T = TypeVar("T")


class Engine(Protocol):
    """A causal language model and its optimizer, sharded over ranks.

    Every method is collective: all ranks call it together, in the same order. Properties are local.

    Shapes: K is the number of kept positions of a packed row, V the size of the vocabulary. Rows that are computed are
    those that `place` returned.
    """

    @property
    def rank(self) -> int:
        """Rank of this process; rank 0 writes what is written once."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes, and of devices."""
        ...

    @property
    def data_rank(self) -> int:
        """Which of the `data_ranks` shares of a step this process computes."""
        ...

    @property
    def data_ranks(self) -> int:
        """Number of ranks that get different rows; several processes may share the rows of one."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        ...

    @property
    def cost(self) -> CostModel:
        """Compute cost of an example of this model by its length."""
        ...

    @property
    def flops(self) -> ModelFlops:
        """Floating-point operations that this model needs for a step."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the output projection."""
        ...

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory since the engine was made, in bytes: of the accelerator, or of the process on a CPU."""
        ...

    @property
    def state(self) -> ShardedState:
        """This rank's slices of master weights and moments, which checkpoints hold."""
        ...

    @property
    def weights(self) -> StageWeights:
        """Float32 weights of the model: where they start from, and what is written of them."""
        ...

    @property
    def store_collectives(self) -> StoreCollectives:
        """Where ranks wait for what takes longer than a collective may."""
        ...

    @property
    def sequence_group(self) -> SequenceGroup:
        """The ranks that compute the same rows, each a part of them."""
        ...

    def place(self, row: PackedRow) -> PackedRow:
        """What this process computes of a row of its `data_rank`, on its device: the whole row, or a part."""
        ...

    def gather_parts(self, row: PackedRow, values: Tensor) -> Tensor:
        """Values at the kept positions of a whole row, from those of this rank's part of it, [k, C]; no gradient."""
        ...

    def forward(self, row: PackedRow) -> Tensor:
        """`token_losses` [K, 2 to 4] at the kept positions of a packed row, with gradients."""
        ...

    def router_balance(self, rows: Sequence[PackedRow]) -> RouterBalance:
        """How the tokens of a step are routed to experts, from all its rows on all ranks, without gradients."""
        ...

    def forward_with_router(self, row: PackedRow) -> tuple[Tensor, Tensor]:
        """What `forward` returns, and the routers' `probabilities` [E] with gradients."""
        ...

    def forward_with_stopped_prefix(self, row: PackedRow) -> Tensor:
        """`forward`, with no gradient through what comes before each example's first kept position."""
        ...

    def forward_without_dropout(self, row: PackedRow) -> Tensor:
        """`forward` in evaluation mode, without gradients."""
        ...

    def predictions_without_dropout(self, row: PackedRow, number: int) -> Tensor:
        """`most_likely` at the kept positions of a packed row, in evaluation mode, without gradients."""
        ...

    def logits_without_dropout(self, row: PackedRow) -> Tensor:
        """Logits [K, V] at the kept positions of a packed row, in evaluation mode, without gradients."""
        ...

    def backward(self, loss_sum: Tensor, denominator: float, *, ends_step: bool) -> None:
        """Accumulate the gradients of this rank's part of the loss.

        Args:
            loss_sum: weighted loss, summed over the micro-batch; scalar.
            denominator: what the sum over all ranks and micro-batches of the step is divided by.
            ends_step: whether this is the last micro-batch of the step.
        """
        ...

    def take_gradient(self) -> Tensor:
        """This rank's slices of the gradient that `backward` has accumulated, flat, float32, on the CPU.

        Afterwards nothing is accumulated. Slices of all ranks together are the gradient.
        """
        ...

    def put_gradient(self, gradient: Tensor) -> None:
        """Have the next `step` use this gradient, after `take_gradient`.

        Args:
            gradient: this rank's slices, flat, float32, on the CPU, in the order of `take_gradient`.
        """
        ...

    def step(self, learning_rate: float) -> float:
        """Clip gradients and update; returns their global norm before clipping.

        The norm is NaN where a gradient is not finite; no rank has updated any weight then.
        """
        ...

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, on the CPU."""
        ...

    def gather_to_all(self, value: T) -> list[T]:
        """The values of all ranks, in rank order."""
        ...

    def wait_for_first_rank(self) -> None:
        """Return once rank 0 is here too, however long it reads or writes; no collective is held meanwhile.

        Raises:
            StorageError: rank 0 did not come within ``training.storage_timeout_seconds``.
        """
        ...

    def without_partitioning(self) -> AbstractContextManager[None]:
        """While the block lasts, models are loaded whole, and each rank generates for itself."""
        ...

    def close(self) -> None:
        """Free the model and the optimizer; the process group stays."""
        ...
