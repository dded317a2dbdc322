"""Compute cost of training on an example, in integer units, so that plans are the same on every machine."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AttentionWindow:
    """The window of a decoder in some of whose layers a query sees the last tokens alone.

    Attributes:
        tokens: tokens that a query sees in these layers, itself included.
        layers: number of these layers.
        of_layers: number of all layers.
    """

    tokens: int
    layers: int
    of_layers: int


def attended_pairs(lengths: np.ndarray, window: AttentionWindow | None = None) -> np.ndarray:
    """Twice the pairs of a query and a token that it sees: L² for an example of L tokens in a layer without a window.

    Args:
        lengths: tokens of each example, int [N].
        window: the model's window; None if every query sees all tokens before it.

    Returns:
        The pairs of each example, int64 [N]: of a layer if there is no window, otherwise of all layers together.
    """
    tokens: np.ndarray = lengths.astype(np.int64)
    whole: np.ndarray = tokens * tokens
    if window is None:
        return whole
    # The first W queries see a triangle of W²/2 pairs, and each of the others W: (2L - W) W / 2 together.
    seen = np.minimum(tokens, window.tokens)
    in_windows = window.layers * seen * (2 * tokens - seen)
    pairs: np.ndarray = in_windows + (window.of_layers - window.layers) * whole
    return pairs


def mean_attended_pairs(lengths: np.ndarray, window: AttentionWindow | None) -> np.ndarray:
    """`attended_pairs` of a layer, as the mean over all layers, float [N]."""
    pairs: np.ndarray = attended_pairs(lengths, window) / (1 if window is None else window.of_layers)
    return pairs


@dataclass(frozen=True)
class CostModel:
    """``cost(L) = linear * L + quadratic * L**2`` for an example of L tokens, or with a window the sum over layers.

    Raises:
        ValueError: A factor is no integer, is negative, or both are 0.
    """

    linear: int
    quadratic: int
    window: AttentionWindow | None = None

    def __post_init__(self) -> None:
        factors = (self.linear, self.quadratic)
        if not all(isinstance(factor, int | np.integer) and factor >= 0 for factor in factors) or not any(factors):
            raise ValueError(f"linear={self.linear}, quadratic={self.quadratic}: a cost needs integers, not both 0")

    @classmethod
    def for_decoder(
        cls,
        hidden_size: int,
        intermediate_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        window: AttentionWindow | None = None,
    ) -> "CostModel":
        """The ratio of linear to quadratic FLOPs in a decoder layer, reduced to the smallest integers.

        Linear: each token is multiplied with the matrices for queries, keys, values and output, and with the three of a
        gated MLP, at 2 FLOPs per weight. Quadratic: causal attention computes half of the L² pairs, at 4 FLOPs per pair
        and dimension.
        """
        attention = hidden_size * head_dim * (2 * num_heads + 2 * num_kv_heads)
        linear, quadratic = 2 * (attention + 3 * hidden_size * intermediate_size), 2 * num_heads * head_dim
        divisor = math.gcd(linear, quadratic)
        return cls(linear // divisor, quadratic // divisor, window)

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """int64 costs of int lengths, same shape."""
        of_layers = 1 if self.window is None else self.window.of_layers
        tokens: np.ndarray = of_layers * lengths.astype(np.int64)
        costs: np.ndarray = self.linear * tokens + self.quadratic * attended_pairs(lengths, self.window)
        return costs
