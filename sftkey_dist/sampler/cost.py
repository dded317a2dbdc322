"""What an example costs to train on, in integer units, so that plans are equal on every machine."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CostModel:
    """``cost(L) = linear * L + quadratic * L**2`` for an example of L tokens."""

    linear: int
    quadratic: int

    @classmethod
    def for_width(cls, hidden_size: int) -> "CostModel":
        """The balance of a decoder layer: 24 h² L FLOPs in its matrices, 2 h L² in causal attention."""
        return cls(linear=12 * hidden_size, quadratic=1)

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """int64 costs of int lengths, same shape."""
        tokens: np.ndarray = lengths.astype(np.int64)
        costs: np.ndarray = self.linear * tokens + self.quadratic * tokens * tokens
        return costs
