"""Level neighbouring steps: exchange a few examples between them where one step drew the longest.

The exchange looks at the examples alone, so which examples form a step stays independent of the number of ranks. It
stays within windows of a few steps of the shuffled order, so that over epochs every example is still equally likely
anywhere.
"""

import numpy as np

from sftkey_dist.sampler.level import Leveller

_EXCHANGEABLE_PER_STEP = 64
"""Enough to level the heaviest tail, and bounds the work; the order being random, the first ones are any ones."""
_MAX_ROUNDS = 32


def level_window(steps: np.ndarray, costs: np.ndarray, loss_units: np.ndarray) -> np.ndarray:
    """Exchange examples between the steps of a window until cost and loss weight are level.

    Args:
        steps: int [W, B], the examples of W whole steps in shuffled order.
        costs: compute cost of every example, int [N].
        loss_units: loss weight of every example in whole units, int [N].

    Returns:
        int [W, B]: the same examples, every step as many as before.
    """
    movable, fixed = np.split(steps, [min(_EXCHANGEABLE_PER_STEP, steps.shape[1])], axis=1)
    places = np.arange(movable.size).reshape(movable.shape)
    levelled = Leveller(
        places,
        [values[movable].ravel() for values in (costs, loss_units)],
        fixed_loads=[values[fixed].sum(axis=1) for values in (costs, loss_units)],
    )
    return np.concatenate([movable.ravel()[levelled.run(_MAX_ROUNDS)], fixed], axis=1)
