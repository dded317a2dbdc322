"""Ranks that compute a row together: each holds a part of its tokens, and attends with a part of the heads.

Everything in a decoder but attention treats tokens one by one, so that a rank needs its part of the row only. Around
attention, ranks exchange tokens for heads (Ulysses, arXiv:2309.14509): every rank then has all tokens of the row for
its share of the heads, and computes what a rank alone would compute for these heads. Two collectives a layer do that.

Shapes: n ranks in the group, T tokens in the row, S = T / n tokens in a part, H heads, D its dimension.
"""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sftkey_dist.errors import ModelError


class SequenceGroup:
    """Consecutive ranks of the process group; the i-th of them holds the i-th part of a row.

    Attributes:
        rank: of this process in the group.
        size: number of ranks in the group, n.
    """

    def __init__(self, size: int, timeout_seconds: float) -> None:
        """Called on all ranks of the process group together.

        Args:
            size: number of ranks in a group, which divides the number of all ranks.
            timeout_seconds: longest wait for another rank in a collective.
        """
        self.size = size
        self._group: Any = None
        if size > 1:
            self._group, _ = dist.new_subgroups(size, timeout=timedelta(seconds=timeout_seconds))
        self.rank = dist.get_rank() % size

    def gather_tokens_scatter_heads(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values of this rank's heads for all tokens, from those of all heads for its own tokens.

        Where there are fewer heads of keys than ranks, several ranks get the same one.

        Args:
            query: [1, H, S, D].
            key: [1, H_kv, S, D].
            value: [1, H_kv, S, D].

        Returns:
            [1, H / n, T, D] of queries, and keys and values of the heads that they attend to.

        Raises:
            ModelError: n does not divide H.
        """
        heads = query.shape[1]
        if heads % self.size:
            raise ModelError(
                f"training.sequence_parallel_ranks={self.size} does not divide the model's {heads} attention heads"
            )
        # Consecutive queries attend to the same key, so repeating each key keeps queries and keys in step: rank i's
        # share of the queries attends to the i-th share of the repeated keys, in groups of one size.
        times = self.size // math.gcd(key.shape[1], self.size)
        keys, values = (x.repeat_interleave(times, dim=1) if times > 1 else x for x in (key, value))
        by_rank = [x[0].unflatten(0, (self.size, -1)) for x in (query, keys, values)]  # each [n, heads / n, S, D]
        received = self._exchange(torch.cat([x.flatten(1) for x in by_rank], dim=1))
        of_each = received.split([x[0].numel() for x in by_rank], dim=1)
        in_shape = (part.view_as(x) for part, x in zip(of_each, by_rank, strict=True))
        # The first dimension is now the rank that the tokens came from, that is their order in the row.
        return [part.transpose(0, 1).flatten(1, 2)[None] for part in in_shape]

    def gather_heads_scatter_tokens(self, attended: Tensor) -> Tensor:
        """What all heads computed for this rank's tokens, [1, S, H, D], from what its own did, [1, T, H / n, D]."""
        by_rank = attended[0].unflatten(0, (self.size, -1))  # [n, S, H / n, D]
        received = self._exchange(by_rank.flatten(1)).view_as(by_rank)
        return received.transpose(0, 1).flatten(1, 2)[None]

    def gather(self, values: Tensor) -> Tensor:
        """[K, C] of all parts of a row, on every rank of the group, from the part of each, [k, C]; no gradient."""
        if self._group is None:
            return values
        parts: Sequence[Any] = [None] * self.size
        dist.all_gather_object(parts, values.cpu(), group=self._group)
        return torch.cat(list(parts))

    def close(self) -> None:
        """End the group; the process group of all ranks stays."""
        if self._group is not None:
            dist.destroy_process_group(self._group)
        self._group = None

    def _exchange(self, by_rank: Tensor) -> Tensor:
        exchanged: Tensor = _AllToAll.apply(by_rank, self._group)
        return exchanged


class _AllToAll(torch.autograd.Function):
    """Sends row i of [n, ...] to rank i, and returns the rows received, in the order of the ranks they are from.

    Its gradient is the same exchange, which sends every row back.
    """

    @staticmethod
    def forward(ctx: Any, by_rank: Tensor, group: Any) -> Tensor:
        ctx.group = group
        received = torch.empty_like(by_rank, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, by_rank.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        exchanged: Tensor = _AllToAll.apply(gradient, ctx.group)
        return exchanged, None
