"""Lay the examples of one optimizer step on ranks and micro-batches, level in compute and in loss tokens.

ZeRO-3 moves in lockstep: micro-batch j ends when its slowest rank does, so the step costs
``Σ_j max_r cost(r, j)``. Bins of equal cost are packed first; sorted by cost and cut into rows of one bin a rank,
the bins of a row differ little, and may be dealt to ranks so that loss tokens level out as well.
"""

import heapq
from collections.abc import Sequence

import numpy as np

Bin = list[int]


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
        bins = _pack(lengths, costs, data_ranks * num_micro_batches, micro_batch_tokens)
        if bins is not None:
            return _deal(bins, costs, loss_weights, data_ranks)
        num_micro_batches += 1


def _pack(lengths: np.ndarray, costs: np.ndarray, num_bins: int, capacity: int) -> list[Bin] | None:
    """Longest processing time first into the cheapest bin with room; None when something finds no room."""
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


def _deal(bins: list[Bin], costs: np.ndarray, loss_weights: np.ndarray, data_ranks: int) -> list[list[Bin]]:
    """Cut the bins, dearest first, into rows; in each row the rank with least loss so far gets the most."""
    bins = sorted(bins, key=lambda content: -_total(costs, content))
    ranks: list[list[Bin]] = [[] for _ in range(data_ranks)]
    dealt = [0.0] * data_ranks
    for start in range(0, len(bins), data_ranks):
        row = sorted(bins[start : start + data_ranks], key=lambda content: -_total(loss_weights, content))
        poorest_first = sorted(range(data_ranks), key=lambda rank: dealt[rank])
        for rank, content in zip(poorest_first, row, strict=True):
            ranks[rank].append(sorted(content))
            dealt[rank] += _total(loss_weights, content)
    return ranks


def _total(values: np.ndarray, positions: Sequence[int]) -> float:
    return float(values[list(positions)].sum())
