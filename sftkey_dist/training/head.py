"""Losses computed inside the output projection, a chunk of positions at a time.

Logits of a long row over a large vocabulary take more memory than the rest of a layer: 4,096 positions over 152k tokens
in float32 are 2.3 GiB, and softmax and gradient as much again. Here only a chunk of them exists at a time, and the
backward pass computes it once more.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sftkey_dist.training.loss import token_losses


class ChunkedHead:
    """Computes losses inside the projection's forward pass, whose weight ZeRO-3 has gathered once for all chunks."""

    def __init__(self, projection: nn.Module, chunk_positions: int, *, with_entropy: bool = False) -> None:
        """
        Args:
            projection: a model's output projection; it goes on returning logits outside of `returning_losses`.
            chunk_positions: number of positions whose logits exist at a time.
            with_entropy: see `token_losses`.
        """
        self._logits, self._chunk_positions = projection.forward, chunk_positions
        self._with_entropy = with_entropy
        self._targets: Tensor | None = None
        self.losses = torch.empty(0)
        """What the projection has returned last in a block of `returning_losses`, without gradient."""
        projection.forward = self._forward

    @contextmanager
    def returning_losses(self, targets: Tensor) -> Iterator["ChunkedHead"]:
        """While the block lasts, the projection returns `token_losses` [1, K, 2 or 3] of the targets [K]."""
        self._targets = targets
        try:
            yield self
        finally:
            self._targets = None

    def _forward(self, hidden: Tensor) -> Tensor:
        if self._targets is None:
            logits: Tensor = self._logits(hidden)
            return logits
        chunks = zip(hidden[0].split(self._chunk_positions), self._targets.split(self._chunk_positions), strict=True)
        losses = [
            checkpoint(self._losses, states, targets, use_reentrant=False, preserve_rng_state=False)
            for states, targets in chunks
        ]
        found = torch.cat(losses)[None]
        self.losses = found.detach()
        return found

    def _losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return token_losses(self._logits(hidden), targets, with_entropy=self._with_entropy)
