"""Exchanges between bins that level several measures together."""

from collections.abc import Sequence

import numpy as np

EMPTY = -1
"""A slot without an item."""

_GAIN_WORTH_AN_EXCHANGE = 1e-9
"""In units of a mean bin's square; below it rounding decides."""
_IDLE_ROUNDS_BEFORE_THE_END = 3


class Leveller:
    """Exchanges items between pairs of bins while that levels all measures together.

    Minimises Σ_measures Σ_bins (load / mean load)². In a round all bins are paired, the fullest with the emptiest by
    one measure after the other and by their sum, and every pair makes its best exchange of one item for one, or for
    an empty slot; all pairs at once, in array operations. Sums of few float64 numbers in a fixed order are the same
    on every machine.
    """

    def __init__(
        self,
        slots: np.ndarray,
        measures: Sequence[np.ndarray],
        *,
        fixed_loads: Sequence[np.ndarray] | None = None,
        sizes: np.ndarray | None = None,
        capacity: int = 0,
    ) -> None:
        """
        Args:
            slots: int [bins, k], items by index, ``EMPTY`` where there is room to move one to.
            measures: what to level, each [items].
            fixed_loads: what bins hold that may not be moved, each [bins]; default nothing.
            sizes: int [items]; with it, no exchange lifts a bin above ``capacity``.
            capacity: most size a bin may hold.
        """
        num_bins = len(slots)
        self._slots = slots.copy()
        fixed = fixed_loads or [np.zeros(num_bins) for _ in measures]
        means = [
            (values[slots[slots != EMPTY]].sum() + load.sum()) / num_bins
            for values, load in zip(measures, fixed, strict=True)
        ]
        # The last entry of each array is what index EMPTY reads: nothing.
        self._measures = [np.append(values / mean, 0.0) for values, mean in zip(measures, means, strict=True)]
        self._fixed = [load / mean for load, mean in zip(fixed, means, strict=True)]
        self._sizes = None if sizes is None else np.append(sizes, 0)
        self._capacity = capacity

    def run(self, max_rounds: int) -> np.ndarray:
        """The levelled slots, int [bins, k]."""
        idle_rounds = 0
        for round_number in range(max_rounds if len(self._slots) > 1 else 0):
            idle_rounds = 0 if self._exchange(*self._pairs(round_number)) else idle_rounds + 1
            if idle_rounds == _IDLE_ROUNDS_BEFORE_THE_END:
                break
        return self._slots

    def _loads(self) -> list[np.ndarray]:
        return [
            fixed + measure[self._slots].sum(axis=1) for fixed, measure in zip(self._fixed, self._measures, strict=True)
        ]

    def _pairs(self, round_number: int) -> tuple[np.ndarray, np.ndarray]:
        """Bins paired fullest with emptiest, by each measure in turn and by their sum."""
        loads = self._loads()
        loads.append(np.sum(loads, axis=0))
        order = np.argsort(loads[round_number % len(loads)], kind="stable")
        half = len(order) // 2
        return order[::-1][:half], order[:half]

    def _exchange(self, full: np.ndarray, empty: np.ndarray) -> bool:
        """Make the best exchange of every pair that has one; says whether any had."""
        width = self._slots.shape[1]
        gain = np.zeros((len(full), width, width))
        for measure, load in zip(self._measures, self._loads(), strict=True):
            moved = self._differences(measure, full, empty)
            # (a - m)² + (b + m)² falls by 2 m (a - b - m) when m moves from load a to load b.
            gain += moved * ((load[full] - load[empty])[:, None, None] - moved)
        if self._sizes is not None:
            gain[~self._fits(self._sizes, full, empty)] = 0.0
        candidates = gain.reshape(len(full), -1)
        best = candidates.argmax(axis=1)
        pairs = np.flatnonzero(candidates[np.arange(len(full)), best] > _GAIN_WORTH_AN_EXCHANGE)
        give, take = np.divmod(best[pairs], width)
        here, there = (full[pairs], give), (empty[pairs], take)
        self._slots[here], self._slots[there] = self._slots[there], self._slots[here]
        return len(pairs) > 0

    def _differences(self, values: np.ndarray, full: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """[pairs, k, k]: what leaves the full bin if slot i of it is exchanged for slot j of the other."""
        differences: np.ndarray = values[self._slots[full]][:, :, None] - values[self._slots[empty]][:, None, :]
        return differences

    def _fits(self, sizes: np.ndarray, full: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Which exchanges keep both bins within the capacity."""
        room = self._capacity - sizes[self._slots].sum(axis=1)
        moved = self._differences(sizes, full, empty)
        fits: np.ndarray = (moved <= room[empty][:, None, None]) & (-moved <= room[full][:, None, None])
        return fits
