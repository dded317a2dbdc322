"""What an example costs to train on, in integer units, so that plans are equal on every machine."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CostModel:
    """``cost(L) = linear * L + quadratic * L**2`` for an example of L tokens."""

    linear: int
    quadratic: int

    @classmethod
    def for_decoder(
        cls, hidden_size: int, intermediate_size: int, num_heads: int, num_kv_heads: int, head_dim: int
    ) -> "CostModel":
        """The balance of a decoder layer in FLOPs, reduced to the smallest integers.

        A token passes its matrices, 2 FLOPs a weight: queries, keys, values, output, and the three of a gated MLP;
        causal attention reads half of L² pairs, 4 FLOPs a pair and dimension.
        """
        attention = hidden_size * head_dim * (2 * num_heads + 2 * num_kv_heads)
        linear, quadratic = 2 * (attention + 3 * hidden_size * intermediate_size), 2 * num_heads * head_dim
        divisor = math.gcd(linear, quadratic)
        return cls(linear // divisor, quadratic // divisor)

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """int64 costs of int lengths, same shape."""
        tokens: np.ndarray = lengths.astype(np.int64)
        costs: np.ndarray = self.linear * tokens + self.quadratic * tokens * tokens
        return costs
