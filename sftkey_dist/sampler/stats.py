"""How level a step lies on its ranks."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BalanceStats:
    """How level a step is.

    Attributes:
        tokens: most tokens on a rank over the mean; 1.0 is perfect.
        cost: the same for compute cost.
        loss_weight: the same for loss weight.
        density: share of the token budget that is used.
        straggler_loss: share of the step's time that ranks spend waiting, since micro-batch j lasts as long as on its
            slowest rank: 1 - Σ_j mean_r cost(r, j) / Σ_j max_r cost(r, j).
    """

    tokens: float
    cost: float
    loss_weight: float
    density: float
    straggler_loss: float


def balance_stats(
    layout: np.ndarray, lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, micro_batch_tokens: int
) -> BalanceStats:
    """The figures of one step.

    Args:
        layout: int [ranks, micro-batches, k], indices into the other arrays, ``EMPTY`` for none.
        lengths: tokens of each example.
        costs: compute cost of each example.
        loss_units: loss weight of each example.
        micro_batch_tokens: most tokens in a micro-batch.
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
    """[ranks, micro-batches]: the sum of a value of each example over every micro-batch."""
    found: np.ndarray = np.where(layout >= 0, values[layout], 0).sum(axis=2)
    return found


def max_over_mean(values: np.ndarray) -> float:
    """The largest value in units of their mean; 1.0 is level."""
    return float(values.max() / values.mean())
