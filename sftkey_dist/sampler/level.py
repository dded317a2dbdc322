"""Exchanges between bins that bring the fullest of them near the least that any assignment could reach."""

from collections.abc import Iterator, Sequence

import numpy as np

EMPTY = -1
"""A slot without an item."""

_TOLERANCES = (0.02, 0.005, 0.001)
"""How far above its bound the fullest bin may stay; each is tried when the one before has been reached."""
_GAIN_WORTH_AN_EXCHANGE = 1e-10
"""In units of a mean bin's square; below it rounding decides."""
_IDLE_ROUNDS_BEFORE_THE_END = 6
_PAIRS_PER_ROUND = 256
_MOST_ITEMS_OF_A_BIN = 24
_MOST_EXCHANGES_PER_ROUND = 2**18
"""Bounds of the work of a round: of bins of many items some are looked at, others in the next round."""


class Leveller:
    """Exchanges items between bins until no bin is too full by any measure.

    A bin is too full when its load exceeds the measure's limit: the lower bound ``max(mean, largest item)`` of any
    assignment, and a tolerance. In a round the bins that are too full by one measure are paired with emptier ones, and
    make the exchange of one item for one, or for an empty slot, that lowers Σ_measures excess² most; all pairs at
    once, in array operations. What lies below the limits is as good anywhere. Loads are sums of integers, so that the
    result is the same on every machine.
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
            measures: what to level, each int [items]; the most important first.
            fixed_loads: what bins hold that may not be moved, each int [bins]; default nothing.
            sizes: int [items]; with it, no exchange lifts a bin above ``capacity``.
            capacity: most size a bin may hold.
        """
        self._slots = -np.sort(-slots, axis=1)  # items first, empty slots last
        self._num_items = (self._slots != EMPTY).sum(axis=1)
        self._num_candidates = min(slots.shape[1], _MOST_ITEMS_OF_A_BIN)
        # The last entry of each array is what index EMPTY reads: nothing.
        self._measures = [np.append(values, 0) for values in measures]
        self._fixed = fixed_loads or [np.zeros(len(slots), dtype=np.int64) for _ in measures]
        self._loads = [self._load(i, np.arange(len(slots))) for i in range(len(measures))]
        self._means = [load.mean() for load in self._loads]
        self._bounds = [self._bound(i) for i in range(len(measures))]
        self._sizes = None if sizes is None or _always_fit(sizes, slots, capacity) else np.append(sizes, 0)
        self._capacity = capacity

    def run(self, max_rounds: int) -> np.ndarray:
        """The levelled slots, int [bins, k]."""
        rounds = iter(range(max_rounds if len(self._slots) > 1 else 0))
        for tolerance in _TOLERANCES:
            if not self._reach(tolerance, rounds):
                break
        return self._slots

    @property
    def excess(self) -> float:
        """Σ_measures (fullest bin / bound - 1)²: how far from what any assignment could reach."""
        return float(sum((load.max() / bound - 1) ** 2 for load, bound in zip(self._loads, self._bounds, strict=True)))

    def _reach(self, tolerance: float, rounds: Iterator[int]) -> bool:
        """Exchange until no bin exceeds its limits; False when that no longer helps or no round is left."""
        limits = [bound * (1 + tolerance) for bound in self._bounds]
        idle_rounds = 0
        while any((load > limit).any() for load, limit in zip(self._loads, limits, strict=True)):
            number = next(rounds, None)
            if number is None or idle_rounds == _IDLE_ROUNDS_BEFORE_THE_END:
                return False
            idle_rounds = 0 if self._round(number, limits) else idle_rounds + 1
        return True

    def _round(self, number: int, limits: Sequence[float]) -> bool:
        """One round by one measure, or by the next that has a bin above its limit."""
        for i in range(len(limits)):
            measure = (number + i) % len(limits)
            full, empty = self._pairs(measure, limits[measure], number)
            if len(full):
                return self._exchange(full, empty, limits, number)
        return False

    def _pairs(self, measure: int, limit: float, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The bins above the limit, each with as many partners of the emptier half as a round has time for.

        Every round pairs them otherwise.
        """
        load = self._loads[measure]
        order = np.argsort(-load, kind="stable")
        half = len(order) // 2
        most = max(1, _MOST_EXCHANGES_PER_ROUND // self._num_candidates**2)
        full = order[: min(half, most, int((load > limit).sum()))]
        emptier = order[half:][::-1]
        if not len(full):
            return full, emptier[:0]
        partners = min(len(emptier), max(1, min(_PAIRS_PER_ROUND, most) // len(full)))
        turn = np.arange(len(full) * partners) + number * len(full) * partners
        return np.repeat(full, partners), emptier[turn % len(emptier)]

    def _exchange(self, full: np.ndarray, empty: np.ndarray, limits: Sequence[float], number: int) -> bool:
        """Make the best exchange of the pairs that have one, each bin once; says whether any had."""
        give, take = self._candidates(full, number, room=False), self._candidates(empty, number, room=True)
        gain, choice = self._best_exchange(full, empty, give, take, limits)
        worth = np.flatnonzero(gain > _GAIN_WORTH_AN_EXCHANGE)
        worth = worth[np.argsort(-gain[worth], kind="stable")]
        for bins in (full, empty):
            worth = worth[np.sort(np.unique(bins[worth], return_index=True)[1])]
        i, j = np.divmod(choice[worth], self._num_candidates)
        self._swap(full[worth], give[worth, i], empty[worth], take[worth, j])
        changed = np.concatenate([full[worth], empty[worth]])
        for measure, loads in enumerate(self._loads):
            loads[changed] = self._load(measure, changed)
        return len(worth) > 0

    def _swap(self, full: np.ndarray, give: np.ndarray, empty: np.ndarray, take: np.ndarray) -> None:
        """Exchange the items of two slots; what moves to an empty slot leaves its bin without a hole."""
        self._slots[full, give], self._slots[empty, take] = self._slots[empty, take], self._slots[full, give]
        moved = self._slots[full, give] == EMPTY
        self._num_items[full[moved]] -= 1
        self._num_items[empty[moved]] += 1
        bins, holes = full[moved], give[moved]
        last = self._num_items[bins]
        self._slots[bins, holes], self._slots[bins, last] = self._slots[bins, last], self._slots[bins, holes]

    def _candidates(self, bins: np.ndarray, number: int, room: bool) -> np.ndarray:
        """Slots of each bin to exchange, int [bins, c]: items, others every round, and with ``room`` a free slot."""
        width = self._slots.shape[1]
        turn = np.arange(self._num_candidates) + number * self._num_candidates
        candidates: np.ndarray = turn[None, :] % np.maximum(self._num_items[bins], 1)[:, None]
        if room:
            candidates[:, -1] = np.minimum(self._num_items[bins], width - 1)
        return candidates

    def _best_exchange(
        self, full: np.ndarray, empty: np.ndarray, give: np.ndarray, take: np.ndarray, limits: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each pair gains by its best exchange, and which one it is, as i * c + j of the two bins' candidates."""
        given, taken = (self._slots[bins[:, None], slots] for bins, slots in ((full, give), (empty, take)))
        gain = np.zeros((len(full), given.shape[1], taken.shape[1]))
        for values, loads, mean, limit in zip(self._measures, self._loads, self._means, limits, strict=True):
            moved = (values[given][:, :, None] - values[taken][:, None, :]) / mean
            before, after = (loads[bins][:, None, None] / mean for bins in (full, empty))
            bound = limit / mean
            gain += _penalty(before, bound) + _penalty(after, bound)
            gain -= _penalty(before - moved, bound) + _penalty(after + moved, bound)
        if self._sizes is not None:
            moved = self._sizes[given][:, :, None] - self._sizes[taken][:, None, :]
            gain[~self._fits(self._sizes, moved, full, empty)] = 0.0
        candidates = gain.reshape(len(full), -1)
        choice = candidates.argmax(axis=1)
        return candidates[np.arange(len(full)), choice], choice

    def _fits(self, sizes: np.ndarray, moved: np.ndarray, full: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Which exchanges keep both bins within the capacity, bool [pairs, c, c]."""
        room_full, room_empty = (
            (self._capacity - sizes[self._slots[bins]].sum(axis=1))[:, None, None] for bins in (full, empty)
        )
        fits: np.ndarray = (moved <= room_empty) & (-moved <= room_full)
        return fits

    def _load(self, measure: int, bins: np.ndarray) -> np.ndarray:
        load: np.ndarray = self._fixed[measure][bins] + self._measures[measure][self._slots[bins]].sum(axis=1)
        return load

    def _bound(self, measure: int) -> float:
        """No assignment has a smaller fullest bin: the mean, in whole units, or the largest item."""
        return float(max(np.ceil(self._means[measure]), self._measures[measure].max()))


def _penalty(load: np.ndarray, bound: float) -> np.ndarray:
    excess = np.maximum(load - bound, 0.0)
    penalty: np.ndarray = excess * excess
    return penalty


def _always_fit(sizes: np.ndarray, slots: np.ndarray, capacity: int) -> bool:
    """Whether even a bin of the largest items would keep within the capacity."""
    return int(np.sort(sizes)[-slots.shape[1] :].sum()) <= capacity
