"""Lay the examples of one optimizer step on ranks and micro-batches, level in compute and in loss tokens.

ZeRO-3 moves in lockstep: micro-batch j ends when its slowest rank does, so the step costs ``Σ_j max_r cost(r, j)``.
Therefore bins, one for each rank and micro-batch, are levelled first, in cost and in loss weight together; sorted by
cost and cut into rows of one bin a rank, the bins of a row differ little and may be dealt freely, so that what is
left of the difference in loss weight levels out over the rows.
"""

import heapq

import numpy as np

from sftkey_dist.sampler.level import EMPTY, Leveller

Bin = list[int]

_MAX_ROUNDS = 48


def balance_step(
    lengths: np.ndarray, costs: np.ndarray, loss_weights: np.ndarray, data_ranks: int, micro_batch_tokens: int
) -> list[list[Bin]]:
    """Assign positions 0..B-1 to ``[rank][micro_batch]`` lists; every rank gets the same number of micro-batches.

    Args:
        lengths: tokens of each example, int [B], none above ``micro_batch_tokens``.
        costs: compute cost of each example, int [B].
        loss_weights: summed loss weight of each example, [B].
        data_ranks: number of data-parallel ranks.
        micro_batch_tokens: most tokens in a micro-batch.

    Returns:
        Lists may be empty where there are fewer examples than bins.
    """
    num_micro_batches = max(1, -(-int(lengths.sum()) // (data_ranks * micro_batch_tokens)))
    while True:
        bins = _pack(lengths, costs, loss_weights, data_ranks * num_micro_batches, micro_batch_tokens)
        if bins is not None:
            leveller = Leveller(_as_slots(bins), [costs, loss_weights], sizes=lengths, capacity=micro_batch_tokens)
            levelled = [[int(item) for item in row if item != EMPTY] for row in leveller.run(_MAX_ROUNDS)]
            return _deal(levelled, costs, loss_weights, data_ranks)
        num_micro_batches += 1


def _pack(
    lengths: np.ndarray, costs: np.ndarray, loss_weights: np.ndarray, num_bins: int, capacity: int
) -> list[Bin] | None:
    """Fill bins within their capacity; None when something finds no room."""
    folded = _fold(costs, loss_weights, num_bins)
    if max(int(lengths[content].sum()) for content in folded) <= capacity:
        return folded
    return _longest_first(lengths, costs, num_bins, capacity)


def _fold(costs: np.ndarray, loss_weights: np.ndarray, num_bins: int) -> list[Bin]:
    """Deal examples of like loss weight one to each bin, the dearest to the bin that is cheapest so far.

    Layers of like weight give bins of like weight; within a layer the order is free, and cost takes it.
    """
    bins: list[Bin] = [[] for _ in range(num_bins)]
    loads = np.zeros(num_bins, dtype=np.int64)
    by_weight = np.lexsort((-costs, -loss_weights))
    for start in range(0, len(by_weight), num_bins):
        layer = by_weight[start : start + num_bins]
        layer = layer[np.argsort(-costs[layer], kind="stable")]
        cheapest_first = np.argsort(loads, kind="stable")[: len(layer)]
        loads[cheapest_first] += costs[layer]
        for index, position in zip(cheapest_first.tolist(), layer.tolist(), strict=True):
            bins[index].append(position)
    return bins


def _longest_first(lengths: np.ndarray, costs: np.ndarray, num_bins: int, capacity: int) -> list[Bin] | None:
    """Longest processing time first (Graham 1969), into the cheapest bin with room."""
    bins: list[Bin] = [[] for _ in range(num_bins)]
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
    return bins


def _as_slots(bins: list[Bin]) -> np.ndarray:
    """int [bins, most examples in a bin + 1]: positions, and ``EMPTY`` where there is room to move one to."""
    slots = np.full((len(bins), max(map(len, bins)) + 1), EMPTY, dtype=np.int64)
    for row, content in enumerate(bins):
        slots[row, : len(content)] = content
    return slots


def _deal(bins: list[Bin], costs: np.ndarray, loss_weights: np.ndarray, data_ranks: int) -> list[list[Bin]]:
    """Cut the bins, dearest first, into rows; in each row the rank with least loss so far gets the most."""
    cost_of, weight_of = ([values[content].sum() for content in bins] for values in (costs, loss_weights))
    dearest_first = sorted(range(len(bins)), key=lambda index: -cost_of[index])
    ranks: list[list[Bin]] = [[] for _ in range(data_ranks)]
    dealt = [0.0] * data_ranks
    for start in range(0, len(bins), data_ranks):
        row = sorted(dearest_first[start : start + data_ranks], key=lambda index: -weight_of[index])
        poorest_first = sorted(range(data_ranks), key=lambda rank: dealt[rank])
        for rank, index in zip(poorest_first, row, strict=True):
            ranks[rank].append(sorted(bins[index]))
            dealt[rank] += float(weight_of[index])
    return ranks
