"""Local search that balances bins: exchanges between bins reduce the largest load towards its lower bound."""

from collections.abc import Iterator, Sequence

import numpy as np

EMPTY = -1
"""Value of a slot that contains no item."""

_TOLERANCES = (0.02, 0.005, 0.001)
"""Relative tolerances of the fullest bin above its lower bound. Each is attempted once the previous one is reached."""
_MIN_GAIN = 1e-10
"""Minimum gain of an exchange, in units of the squared mean load; smaller gains are rounding errors."""
_MAX_IDLE_ROUNDS = 6
_PAIRS_PER_ROUND = 256
_MAX_CANDIDATES_PER_BIN = 24
_MAX_EXCHANGES_PER_ROUND = 2**18
"""Limits on the work of a round. If a bin has more items than candidates, the rounds consider them in turn."""


class Leveller:
    """Exchanges items between bins until no bin is too full by any measure.

    A bin is too full by a measure if its load exceeds the limit: the lower bound of any assignment, ``max(mean, largest
    item)``, plus a tolerance. In each round, the bins that are too full by one measure are paired with emptier ones.
    Each pair exchanges one item for another, or for an empty slot, such that Σ_measures excess² decreases most. All
    pairs are evaluated at once with array operations. Loads below the limits do not count, so nothing is moved between
    bins that are not too full. Loads are sums of integers, so the result is the same on every machine.
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
            slots: int [bins, k], indices of items, and ``EMPTY`` for slots that an item can move to.
            measures: quantities to balance, each int [items]; the most important first.
            fixed_loads: per measure, the load of each bin that cannot be moved, int [bins]; default 0.
            sizes: int [items]; if given, no exchange raises the total size of a bin above ``capacity``.
            capacity: maximum total size of a bin.
        """
        # Invariant of every row: items first, empty slots last, so that slot ``_num_items`` is the first free one. The
        # order of the items is irrelevant.
        self._slots = -np.sort(-slots, axis=1)
        self._num_items = (self._slots != EMPTY).sum(axis=1)
        self._num_candidates = min(slots.shape[1], _MAX_CANDIDATES_PER_BIN)
        # EMPTY is -1 and therefore reads the last entry of an array, which is the 0 appended here: no load, no size.
        self._measures = [np.append(values, 0) for values in measures]
        self._fixed = fixed_loads or [np.zeros(len(slots), dtype=np.int64) for _ in measures]
        self._loads = [self._load(i, np.arange(len(slots))) for i in range(len(measures))]
        # Exchanges never change the mean load, so means and bounds are computed once.
        self._means = [load.mean() for load in self._loads]
        self._bounds = [self._bound(i) for i in range(len(measures))]
        # None if even the largest items fit together: then capacities need no check.
        self._sizes = None if sizes is None or _always_fit(sizes, slots, capacity) else np.append(sizes, 0)
        self._capacity = capacity

    def run(self, max_rounds: int) -> np.ndarray:
        """Balance the bins and return the slots, int [bins, k]."""
        # All tolerances share the rounds. The coarse tolerance comes first, so that exchanges reduce the largest
        # excesses before they are spent on bins that are nearly balanced.
        rounds = iter(range(max_rounds if len(self._slots) > 1 else 0))
        for tolerance in _TOLERANCES:
            if not self._reach(tolerance, rounds):
                break
        return self._slots

    @property
    def excess(self) -> float:
        """Σ_measures (largest load / bound - 1)²: how far the bins are from the lower bound of any assignment."""
        return float(sum((load.max() / bound - 1) ** 2 for load, bound in zip(self._loads, self._bounds, strict=True)))

    def _reach(self, tolerance: float, rounds: Iterator[int]) -> bool:
        """Exchange until no bin exceeds its limits; False if there is no progress any more or no round is left."""
        limits = [bound * (1 + tolerance) for bound in self._bounds]
        # A round without an exchange is not the end: the next one pairs other bins, other items or another measure.
        idle_rounds = 0
        while any((load > limit).any() for load, limit in zip(self._loads, limits, strict=True)):
            number = next(rounds, None)
            if number is None or idle_rounds == _MAX_IDLE_ROUNDS:
                return False
            idle_rounds = 0 if self._round(number, limits) else idle_rounds + 1
        return True

    def _round(self, number: int, limits: Sequence[float]) -> bool:
        """Run a round for the next measure with a bin above its limit; False if nothing was exchanged."""
        # The round number selects the measure in turn, so that no measure is balanced only after all others.
        for i in range(len(limits)):
            measure = (number + i) % len(limits)
            full, empty = self._pairs(measure, limits[measure], number)
            if len(full):
                return self._exchange(full, empty, limits, number)
        return False

    def _pairs(self, measure: int, limit: float, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The bins above the limit, each repeated for as many partners from the emptier half as the work limits allow.

        Returns:
            int [pairs] twice: the fuller and the emptier bin of each pair. Every round forms other pairs.
        """
        load = self._loads[measure]
        order = np.argsort(-load, kind="stable")
        # A bin above the limit but in the emptier half is left for a later round, so no bin is on both sides of a pair.
        half = len(order) // 2
        most = max(1, _MAX_EXCHANGES_PER_ROUND // self._num_candidates**2)
        full = order[: min(half, most, int((load > limit).sum()))]
        emptier = order[half:][::-1]
        if not len(full):
            return full, emptier[:0]
        partners = min(len(emptier), max(1, min(_PAIRS_PER_ROUND, most) // len(full)))
        # Partners are consecutive bins of the emptier half, offset by the round number: every round forms other pairs.
        turn = np.arange(len(full) * partners) + number * len(full) * partners
        return np.repeat(full, partners), emptier[turn % len(emptier)]

    def _exchange(self, full: np.ndarray, empty: np.ndarray, limits: Sequence[float], number: int) -> bool:
        """Make the best exchange of each pair with a gain, at most one per bin; returns whether there was any."""
        give, take = self._candidates(full, number, room=False), self._candidates(empty, number, room=True)
        gain, choice = self._best_exchange(full, empty, give, take, limits)
        worth = np.flatnonzero(gain > _MIN_GAIN)
        worth = worth[np.argsort(-gain[worth], kind="stable")]
        # A gain is only valid while both bins are unchanged, so only the best exchange of each bin is kept. It is the
        # first one, because exchanges are sorted by gain: np.unique finds first occurrences, and sorting their indices
        # restores the order of gains.
        for bins in (full, empty):
            worth = worth[np.sort(np.unique(bins[worth], return_index=True)[1])]
        i, j = np.divmod(choice[worth], self._num_candidates)
        self._swap(full[worth], give[worth, i], empty[worth], take[worth, j])
        # Loads are recomputed from the items instead of updated, so that they cannot drift from the slots.
        changed = np.concatenate([full[worth], empty[worth]])
        for measure, loads in enumerate(self._loads):
            loads[changed] = self._load(measure, changed)
        return len(worth) > 0

    def _swap(self, full: np.ndarray, give: np.ndarray, empty: np.ndarray, take: np.ndarray) -> None:
        """Exchange the contents of two slots of each pair, and close the holes that moved items leave."""
        self._slots[full, give], self._slots[empty, take] = self._slots[empty, take], self._slots[full, give]
        # Where the other slot was empty, the item has moved and its old slot is a hole. The last item of the bin is
        # moved into the hole, which restores the invariant that empty slots come last.
        moved = self._slots[full, give] == EMPTY
        self._num_items[full[moved]] -= 1
        self._num_items[empty[moved]] += 1
        bins, holes = full[moved], give[moved]
        last = self._num_items[bins]
        self._slots[bins, holes], self._slots[bins, last] = self._slots[bins, last], self._slots[bins, holes]

    def _candidates(self, bins: np.ndarray, number: int, room: bool) -> np.ndarray:
        """Slots of each bin to consider, int [bins, c]: items, and with ``room`` also the first free slot."""
        width = self._slots.shape[1]
        # A bin with more items than candidates shows other items in every round, modulo its own number of items.
        turn = np.arange(self._num_candidates) + number * self._num_candidates
        candidates: np.ndarray = turn[None, :] % np.maximum(self._num_items[bins], 1)[:, None]
        # In a bin without a free slot the last item takes this place, so that the index stays valid.
        if room:
            candidates[:, -1] = np.minimum(self._num_items[bins], width - 1)
        return candidates

    def _best_exchange(
        self, full: np.ndarray, empty: np.ndarray, give: np.ndarray, take: np.ndarray, limits: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the best exchange of each pair.

        Returns:
            The gain, float [pairs], and the exchange, int [pairs], as i * c + j for the candidates i and j of the two
            bins.
        """
        given, taken = (self._slots[bins[:, None], slots] for bins, slots in ((full, give), (empty, take)))
        gain = np.zeros((len(full), given.shape[1], taken.shape[1]))
        for values, loads, mean, limit in zip(self._measures, self._loads, self._means, limits, strict=True):
            # Loads are divided by their mean, so that measures of different units can be added.
            moved = (values[given][:, :, None] - values[taken][:, None, :]) / mean
            before, after = (loads[bins][:, None, None] / mean for bins in (full, empty))
            bound = limit / mean
            gain += _penalty(before, bound) + _penalty(after, bound)
            gain -= _penalty(before - moved, bound) + _penalty(after + moved, bound)
        if self._sizes is not None:
            moved = self._sizes[given][:, :, None] - self._sizes[taken][:, None, :]
            # A gain of 0 is below the threshold, so such an exchange is never made.
            gain[~self._fits(self._sizes, moved, full, empty)] = 0.0
        candidates = gain.reshape(len(full), -1)
        choice = candidates.argmax(axis=1)
        return candidates[np.arange(len(full)), choice], choice

    def _fits(self, sizes: np.ndarray, moved: np.ndarray, full: np.ndarray, empty: np.ndarray) -> np.ndarray:
        """Whether an exchange keeps both bins within the capacity, bool [pairs, c, c]."""
        room_full, room_empty = (
            (self._capacity - sizes[self._slots[bins]].sum(axis=1))[:, None, None] for bins in (full, empty)
        )
        fits: np.ndarray = (moved <= room_empty) & (-moved <= room_full)
        return fits

    def _load(self, measure: int, bins: np.ndarray) -> np.ndarray:
        load: np.ndarray = self._fixed[measure][bins] + self._measures[measure][self._slots[bins]].sum(axis=1)
        return load

    def _bound(self, measure: int) -> float:
        """Lower bound of the largest load in any assignment: the mean, rounded up, or the largest item."""
        return float(max(np.ceil(self._means[measure]), self._measures[measure].max()))


def _penalty(load: np.ndarray, bound: float) -> np.ndarray:
    excess = np.maximum(load - bound, 0.0)
    penalty: np.ndarray = excess * excess
    return penalty


def _always_fit(sizes: np.ndarray, slots: np.ndarray, capacity: int) -> bool:
    """Whether even a bin that contains the largest items would be within the capacity."""
    return int(np.sort(sizes)[-slots.shape[1] :].sum()) <= capacity
