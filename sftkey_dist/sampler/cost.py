"""Compute cost of training on an example, in integer units, so that plans are the same on every machine."""

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
        """The ratio of linear to quadratic FLOPs in a decoder layer, reduced to the smallest integers.

        Linear: each token is multiplied with the matrices for queries, keys, values and output, and with the three of a
        gated MLP, at 2 FLOPs per weight. Quadratic: causal attention computes half of the L² pairs, at 4 FLOPs per pair
        and dimension.
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
