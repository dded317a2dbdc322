"""Simple ways to distribute the examples of a step over ranks, as baselines for the plan.

Each takes the lengths of the examples in the order in which they were drawn, and returns the positions that every rank
gets.
"""

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from sftkey_dist.sampler.level import EMPTY

Deal = Callable[[np.ndarray, int], list[list[int]]]


def as_drawn(lengths: np.ndarray, data_ranks: int) -> list[list[int]]:
    """Round-robin, as torch's ``DistributedSampler`` distributes a shuffled epoch."""
    return [list(range(rank, len(lengths), data_ranks)) for rank in range(data_ranks)]


def longest_first(lengths: np.ndarray, data_ranks: int) -> list[list[int]]:
    """Longest processing time first (Graham 1969): each example goes to the rank with the fewest tokens so far."""
    ranks: list[list[int]] = [[] for _ in range(data_ranks)]
    heap = [(0, rank) for rank in range(data_ranks)]
    for position in np.argsort(-lengths, kind="stable").tolist():
        tokens, rank = heapq.heappop(heap)
        ranks[rank].append(position)
        heapq.heappush(heap, (tokens + int(lengths[position]), rank))
    return ranks


def rows_in_order(ranks: Sequence[Sequence[int]], lengths: np.ndarray, micro_batch_tokens: int) -> np.ndarray:
    """Split each rank's examples, in their order, into rows within the token budget; int [ranks, micro-batches, k]."""
    rows = [_cut(rank, lengths, micro_batch_tokens) for rank in ranks]
    width = max(len(row) for rank in rows for row in rank)
    layout = np.full((len(rows), max(map(len, rows)), width), EMPTY, dtype=np.int64)
    for number, rank in enumerate(rows):
        for row_number, row in enumerate(rank):
            layout[number, row_number, : len(row)] = row
    return layout


def _cut(rank: Sequence[int], lengths: np.ndarray, micro_batch_tokens: int) -> list[list[int]]:
    rows: list[list[int]] = [[]]
    tokens = 0
    for position in rank:
        tokens += int(lengths[position])
        if tokens > micro_batch_tokens and rows[-1]:
            rows.append([])
            tokens = int(lengths[position])
        rows[-1].append(position)
    return rows
