"""How evenly a step loads its ranks."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BalanceStats:
    """Imbalance and efficiency of a step.

    Attributes:
        tokens: maximum over ranks of the number of tokens, divided by the mean; 1.0 is perfectly balanced.
        cost: the same for compute cost.
        loss_weight: the same for loss weight.
        density: share of the token budget that is used.
        straggler_loss: share of the step's time that ranks spend waiting. Micro-batch j takes as long as on its slowest
            rank: 1 - Σ_j mean_r cost(r, j) / Σ_j max_r cost(r, j).
    """

    tokens: float
    cost: float
    loss_weight: float
    density: float
    straggler_loss: float

    def rounded(self) -> "BalanceStats":
        """To four digits after the point, as journals have it."""
        return BalanceStats(**{name: round(value, 4) for name, value in vars(self).items()})


def balance_stats(
    layout: np.ndarray, lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, micro_batch_tokens: int
) -> BalanceStats:
    """Compute the statistics of one step.

    Args:
        layout: int [ranks, micro-batches, k], indices into the other arrays, ``EMPTY`` for an empty slot.
        lengths: tokens of each example.
        costs: compute cost of each example.
        loss_units: loss weight of each example.
        micro_batch_tokens: maximum number of tokens in a micro-batch.
    """
    tokens, cost, loss = (loads(layout, values) for values in (lengths, costs, loss_units))
    return BalanceStats(
        tokens=max_over_mean(tokens.sum(axis=1)),
        cost=max_over_mean(cost.sum(axis=1)),
        loss_weight=max_over_mean(loss.sum(axis=1)),
        density=float(tokens.sum() / (tokens.size * micro_batch_tokens)),
        straggler_loss=float(1 - cost.mean(axis=0).sum() / cost.max(axis=0).sum()),
    )


def loads(layout: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[ranks, micro-batches]: the sum of a per-example value over every micro-batch."""
    found: np.ndarray = np.where(layout >= 0, values[layout], 0).sum(axis=2)
    return found


def max_over_mean(values: np.ndarray) -> float:
    """The maximum divided by the mean; 1.0 is perfectly balanced."""
    return float(values.max() / values.mean())
