"""Balances consecutive steps: exchanges a few examples between them if one step drew the longest examples.

The exchange depends on the examples only, so which examples form a step does not depend on the number of ranks. It
stays within windows of a few steps of the shuffled order, so over many epochs every example remains about equally
likely at any place.
"""

import numpy as np

from sftkey_dist.sampler.level import Leveller

_EXCHANGEABLE_PER_STEP = 64
"""Enough to balance very heavy-tailed lengths, and limits the work. The order is random, so the first examples of a
step are a random sample of it."""
_MAX_ROUNDS = 32


def level_window(steps: np.ndarray, costs: np.ndarray, loss_units: np.ndarray) -> np.ndarray:
    """Exchange examples between the steps of a window until cost and loss weight are balanced.

    Args:
        steps: int [W, B], the examples of W whole steps in shuffled order.
        costs: compute cost of every example, int [N].
        loss_units: loss weight of every example in integer units, int [N].

    Returns:
        int [W, B]: the same examples; every step keeps its number of examples.
    """
    movable, fixed = np.split(steps, [min(_EXCHANGEABLE_PER_STEP, steps.shape[1])], axis=1)
    # The bins hold positions in the flattened movable examples. They have no empty slots, so the leveller can only
    # swap examples, and every step keeps its size.
    places = np.arange(movable.size).reshape(movable.shape)
    levelled = Leveller(
        places,
        [values[movable].ravel() for values in (costs, loss_units)],
        fixed_loads=[values[fixed].sum(axis=1) for values in (costs, loss_units)],
    )
    return np.concatenate([movable.ravel()[levelled.run(_MAX_ROUNDS)], fixed], axis=1)
