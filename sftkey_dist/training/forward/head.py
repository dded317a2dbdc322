"""What is computed from logits, inside the output projection, a chunk of positions at a time.

Logits of a long row over a large vocabulary take more memory than the rest of a layer: 4,096 positions over 152k tokens
in float32 are 2.3 GiB, and softmax and gradient as much again. Here only a chunk of them exists at a time, and the
backward pass computes it once more.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

OfLogits = Callable[[Tensor, slice], Tensor]
"""Computes numbers [n, C] from the logits [n, V] of a range of n kept positions."""


class ChunkedHead:
    """Computes inside the projection's forward pass, whose weight ZeRO-3 has gathered once for all chunks."""

    def __init__(self, projection: nn.Module, chunk_positions: int) -> None:
        """
        Args:
            projection: a model's output projection; it goes on returning logits outside of `computing`.
            chunk_positions: number of positions whose logits exist at a time.
        """
        self._logits, self._chunk_positions = projection.forward, chunk_positions
        self._compute: OfLogits | None = None
        self.computed = torch.empty(0)
        """What the projection has returned last in a block of `computing`, without gradient."""
        projection.forward = self._forward

    @contextmanager
    def computing(self, compute: OfLogits) -> Iterator["ChunkedHead"]:
        """While the block lasts, the projection returns what is computed from its logits, [1, K, C]."""
        self._compute = compute
        try:
            yield self
        finally:
            self._compute = None

    def _forward(self, hidden: Tensor) -> Tensor:
        if self._compute is None:
            logits: Tensor = self._logits(hidden)
            return logits
        compute, size = self._compute, self._chunk_positions
        found = [
            checkpoint(
                lambda states, kept: compute(self._logits(states), kept),
                hidden[0, start : start + size],
                slice(start, start + size),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for start in range(0, hidden.shape[1], size)
        ]
        result = torch.cat(found)[None]
        self.computed = result.detach()
        return result
