"""Lay the examples of one optimizer step on ranks and micro-batches, level in compute and in loss tokens.

ZeRO-3 moves in lockstep: micro-batch j ends when its slowest rank does, so the step costs ``Σ_j max_r cost(r, j)``.
Therefore bins, one for each rank and micro-batch, are levelled first, in cost and in loss weight together; sorted by
cost and cut into rows of one bin a rank, the bins of a row differ little and may be dealt freely, so that what is
left of the difference in loss weight levels out over the rows. At last ranks exchange examples within a row, to level
it in cost and themselves in loss weight; a row that has to wait for one long example is filled from the rows after it.
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from sftkey_dist.sampler.level import EMPTY, Leveller

_MAX_ROUNDS = 200
_FULL_ENOUGH = 0.98
"""Mean over fullest bin from which a row is not worth filling."""
_EXCESS_NOT_WORTH_ANOTHER_START = 1e-5
_MOST_BINS_FOR_ANOTHER_START = 512
"""Many bins offer many exchanges, so that the first start leads as far as any."""


def balance_step(
    lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, data_ranks: int, micro_batch_tokens: int
) -> np.ndarray:
    """Assign positions 0..B-1 to ranks and micro-batches; every rank gets the same number of micro-batches.

    Args:
        lengths: tokens of each example, int [B], none above ``micro_batch_tokens``.
        costs: compute cost of each example, int [B].
        loss_units: loss weight of each example in whole units, int [B].
        data_ranks: number of data-parallel ranks.
        micro_batch_tokens: most tokens in a micro-batch.

    Returns:
        int [ranks, micro-batches, k]: positions, ``EMPTY`` where a slot holds none; a micro-batch of empty slots is
        a dummy.
    """
    num_micro_batches = max(1, -(-int(lengths.sum()) // (data_ranks * micro_batch_tokens)))
    while True:
        bins = _level_bins(lengths, costs, loss_units, data_ranks * num_micro_batches, micro_batch_tokens)
        if bins is not None:
            layout = _deal(bins, costs, loss_units, data_ranks)
            return _level_rows(layout, costs, loss_units, lengths, micro_batch_tokens)
        num_micro_batches += 1


def _level_bins(
    lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, num_bins: int, capacity: int
) -> np.ndarray | None:
    """The most level bins within their capacity that a few starts lead to, int [bins, k]; None when none fits."""
    best, least_excess = None, float("inf")
    for bins in _starts(lengths, costs, loss_units, num_bins, capacity):
        leveller = Leveller(bins, [costs, loss_units], sizes=lengths, capacity=capacity)
        levelled = leveller.run(_MAX_ROUNDS)
        if leveller.excess < least_excess:
            best, least_excess = levelled, leveller.excess
        if least_excess < _EXCESS_NOT_WORTH_ANOTHER_START or num_bins > _MOST_BINS_FOR_ANOTHER_START:
            break
    return best


def _starts(
    lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, num_bins: int, capacity: int
) -> Iterator[np.ndarray]:
    """Ways to fill bins within their capacity, int [bins, k] with a slot to spare."""
    for first, second in ((loss_units, costs), (costs, loss_units)):
        folded = _fold(first, second, num_bins)
        if int(np.append(lengths, 0)[folded].sum(axis=1).max()) <= capacity:
            yield folded
    dealt = _longest_first(lengths, costs, num_bins, capacity)
    if dealt is not None:
        yield dealt


def _fold(first: np.ndarray, second: np.ndarray, num_bins: int) -> np.ndarray:
    """Deal examples that are alike in one measure one to each bin, by the other the most to the bin with least so far.

    Layers of like measure give bins of like measure; within a layer the order is free, and the other measure takes it.
    """
    num_layers = -(-len(first) // num_bins)
    bins = np.full((num_bins, num_layers + 1), EMPTY, dtype=np.int64)
    loads = np.zeros(num_bins, dtype=np.int64)
    in_layers = np.lexsort((-second, -first))
    for number in range(num_layers):
        layer = in_layers[number * num_bins : (number + 1) * num_bins]
        layer = layer[np.argsort(-second[layer], kind="stable")]
        least_first = np.argsort(loads, kind="stable")[: len(layer)]
        loads[least_first] += second[layer]
        bins[least_first, number] = layer
    return bins


def _longest_first(lengths: np.ndarray, costs: np.ndarray, num_bins: int, capacity: int) -> np.ndarray | None:
    """Longest processing time first (Graham 1969), into the cheapest bin with room."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    room = [capacity] * num_bins
    heap = [(0, index) for index in range(num_bins)]
    for position in np.argsort(-costs, kind="stable").tolist():
        full = []
        while heap and room[heap[0][1]] < lengths[position]:
            full.append(heapq.heappop(heap))
        if not heap:
            return None
        cost, index = heapq.heappop(heap)
        bins[index].append(position)
        room[index] -= int(lengths[position])
        heapq.heappush(heap, (cost + int(costs[position]), index))
        for entry in full:
            heapq.heappush(heap, entry)
    return _as_slots(bins)


def _deal(bins: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, data_ranks: int) -> np.ndarray:
    """Cut the bins, dearest first, into rows; in each row the rank with least loss so far gets the most."""
    cost_of, loss_of = (np.append(values, 0)[bins].sum(axis=1) for values in (costs, loss_units))
    rows = np.argsort(-cost_of, kind="stable").reshape(-1, data_ranks)
    dealt = np.zeros(data_ranks, dtype=np.int64)
    layout = np.empty((data_ranks, len(rows), bins.shape[1]), dtype=np.int64)
    for number, row in enumerate(rows):
        richest_first = row[np.argsort(-loss_of[row], kind="stable")]
        poorest_first = np.argsort(dealt, kind="stable")
        layout[poorest_first, number] = bins[richest_first]
        dealt[poorest_first] += loss_of[richest_first]
    return layout


def _level_rows(
    layout: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, lengths: np.ndarray, capacity: int
) -> np.ndarray:
    """Exchange examples between the ranks' bins of each row; int [ranks, micro-batches, k]."""
    if layout.shape[1] == 1:
        return layout
    for row in range(layout.shape[1]):
        loss_of = np.append(loss_units, 0)[layout].sum(axis=2)
        elsewhere = [np.zeros(len(layout), dtype=np.int64), loss_of.sum(axis=1) - loss_of[:, row]]
        leveller = Leveller(
            layout[:, row], [costs, loss_units], fixed_loads=elsewhere, sizes=lengths, capacity=capacity
        )
        layout[:, row] = leveller.run(_MAX_ROUNDS)
        layout = _fill(layout, row, costs, lengths, capacity)
    return layout[:, (layout != EMPTY).any(axis=(0, 2))]


def _fill(layout: np.ndarray, row: int, costs: np.ndarray, lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Bring a row that waits for one long example up to it, with examples of each rank's own later rows."""
    cost_of = np.append(costs, 0)[layout[:, row]].sum(axis=1)
    limit = int(cost_of.max())
    if cost_of.mean() > _FULL_ENOUGH * limit or row == layout.shape[1] - 1:
        return layout
    bins = [[content[content != EMPTY].tolist() for content in rank] for rank in layout]
    for rank, cost in zip(bins, cost_of.tolist(), strict=True):
        room = capacity - int(lengths[rank[row]].sum())
        for later in rank[row + 1 :]:
            for position in sorted(later, key=lambda i: -int(costs[i])):
                if cost + int(costs[position]) <= limit and int(lengths[position]) <= room:
                    later.remove(position)
                    rank[row].append(position)
                    cost, room = cost + int(costs[position]), room - int(lengths[position])
    return _as_slots([content for rank in bins for content in rank]).reshape(*layout.shape[:2], -1)


def _as_slots(bins: Sequence[Sequence[int]]) -> np.ndarray:
    """int [bins, most items in a bin + 1]: positions, and ``EMPTY`` where there is room to move one to."""
    slots = np.full((len(bins), max(map(len, bins)) + 1), EMPTY, dtype=np.int64)
    for row, content in enumerate(bins):
        slots[row, : len(content)] = content
    return slots
