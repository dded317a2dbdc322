"""Places the examples of one optimizer step on ranks and micro-batches, balanced in compute and in loss tokens.

With ZeRO-3, ranks proceed in lockstep: micro-batch j ends when its slowest rank ends, so a step costs
``Σ_j max_r cost(r, j)``. The algorithm has four steps:

1. Bins, one per rank and micro-batch, are filled and balanced in cost and loss weight together (`_level_bins`).
2. The bins are sorted by cost and split into rows of one bin per rank, so that the bins of a row differ little in cost.
   Within a row any rank may take any bin; this freedom balances the ranks in loss weight (`_deal`).
3. Ranks exchange examples within a row, to balance the row in cost and the ranks in loss weight (`_level_rows`).
4. A row that has to wait for one long example is filled with examples of later rows (`_fill`).
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from sftkey_dist.sampler.level import EMPTY, Leveller

_MAX_ROUNDS = 200
_FULL_ENOUGH = 0.98
"""Ratio of the mean to the maximum cost in a row from which on filling the row is not worth it."""
_GOOD_ENOUGH_EXCESS = 1e-5
_MAX_BINS_FOR_MORE_STARTS = 512
"""With more bins there are so many possible exchanges that every start leads to about the same result."""


def balance_step(
    lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, data_ranks: int, micro_batch_tokens: int
) -> np.ndarray:
    """Assign positions 0..B-1 to ranks and micro-batches; every rank gets the same number of micro-batches.

    Args:
        lengths: tokens of each example, int [B], none above ``micro_batch_tokens``.
        costs: compute cost of each example, int [B].
        loss_units: loss weight of each example in integer units, int [B].
        data_ranks: number of data-parallel ranks.
        micro_batch_tokens: maximum number of tokens in a micro-batch.

    Returns:
        int [ranks, micro-batches, k]: positions, ``EMPTY`` for an empty slot. A micro-batch of only empty slots is a
        dummy.
    """
    # No layout has fewer micro-batches than this. Packing may need more, so the number grows until the examples fit.
    # They do at the latest with one example per bin, because no example is longer than a micro-batch.
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
    """Balance the bins from several starts and return the best result, int [bins, k]; None if no start fits the
    capacity."""
    best, least_excess = None, float("inf")
    # Exchanges only reach a local optimum, which depends on the start. Other starts are tried only while the result is
    # not good enough and the step is small, since each costs a whole run of the leveller.
    for bins in _starts(lengths, costs, loss_units, num_bins, capacity):
        leveller = Leveller(bins, [costs, loss_units], sizes=lengths, capacity=capacity)
        levelled = leveller.run(_MAX_ROUNDS)
        if leveller.excess < least_excess:
            best, least_excess = levelled, leveller.excess
        if least_excess < _GOOD_ENOUGH_EXCESS or num_bins > _MAX_BINS_FOR_MORE_STARTS:
            break
    return best


def _starts(
    lengths: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, num_bins: int, capacity: int
) -> Iterator[np.ndarray]:
    """Initial assignments of examples to bins within their capacity, int [bins, k], each with a spare slot per bin."""
    # Folding ignores lengths, so its result has to be checked. Longest-first respects the capacity, but it ignores the
    # loss weight and is slower, so it comes last.
    for first, second in ((loss_units, costs), (costs, loss_units)):
        folded = _fold(first, second, num_bins)
        if int(np.append(lengths, 0)[folded].sum(axis=1).max()) <= capacity:
            yield folded
    dealt = _longest_first(lengths, costs, num_bins, capacity)
    if dealt is not None:
        yield dealt


def _fold(first: np.ndarray, second: np.ndarray, num_bins: int) -> np.ndarray:
    """Assign examples to bins in layers: balanced in the first measure by construction, in the second one greedily.

    A layer has one example per bin, and its examples are similar in the first measure; so all bins get similar totals
    of it, whichever bin an example goes to. Within a layer, the example that is largest in the second measure goes to
    the bin that has least of it so far.
    """
    num_layers = -(-len(first) // num_bins)
    bins = np.full((num_bins, num_layers + 1), EMPTY, dtype=np.int64)
    loads = np.zeros(num_bins, dtype=np.int64)
    in_layers = np.lexsort((-second, -first))
    for number in range(num_layers):
        # The last layer may have fewer examples than there are bins; the emptiest bins get them.
        layer = in_layers[number * num_bins : (number + 1) * num_bins]
        layer = layer[np.argsort(-second[layer], kind="stable")]
        least_first = np.argsort(loads, kind="stable")[: len(layer)]
        loads[least_first] += second[layer]
        bins[least_first, number] = layer
    return bins


def _longest_first(lengths: np.ndarray, costs: np.ndarray, num_bins: int, capacity: int) -> np.ndarray | None:
    """Longest processing time first (Graham 1969): each example goes to the cheapest bin with room; None if one fits
    nowhere."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    room = [capacity] * num_bins
    heap = [(0, index) for index in range(num_bins)]
    for position in np.argsort(-costs, kind="stable").tolist():
        # Bins without room for this example are set aside; they may have room for a later, shorter one.
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
    """Split the bins, most expensive first, into rows; in each row, the rank with the least loss so far gets the
    most."""
    cost_of, loss_of = (np.append(values, 0)[bins].sum(axis=1) for values in (costs, loss_units))
    rows = np.argsort(-cost_of, kind="stable").reshape(-1, data_ranks)
    # Sorted by cost, these rows have the smallest possible sum of row maxima. The assignment within a row does not
    # change that sum, so it is free to balance the loss weight.
    dealt = np.zeros(data_ranks, dtype=np.int64)
    layout = np.empty((data_ranks, len(rows), bins.shape[1]), dtype=np.int64)
    for number, row in enumerate(rows):
        bins_most_loss_first = row[np.argsort(-loss_of[row], kind="stable")]
        ranks_least_loss_first = np.argsort(dealt, kind="stable")
        layout[ranks_least_loss_first, number] = bins[bins_most_loss_first]
        dealt[ranks_least_loss_first] += loss_of[bins_most_loss_first]
    return layout


def _level_rows(
    layout: np.ndarray, costs: np.ndarray, loss_units: np.ndarray, lengths: np.ndarray, capacity: int
) -> np.ndarray:
    """Exchange examples between the bins of each row, and fill rows from later ones; int [ranks, micro-batches, k]."""
    if layout.shape[1] == 1:  # a single row has been balanced as bins already
        return layout
    # In order, because filling a row takes examples from the rows after it, which are balanced afterwards.
    for row in range(layout.shape[1]):
        loss_of = np.append(loss_units, 0)[layout].sum(axis=2)
        # Cost is balanced within the row only. Loss weight is balanced over whole ranks, so what a rank has in its
        # other rows is a fixed load.
        elsewhere = [np.zeros(len(layout), dtype=np.int64), loss_of.sum(axis=1) - loss_of[:, row]]
        leveller = Leveller(
            layout[:, row], [costs, loss_units], fixed_loads=elsewhere, sizes=lengths, capacity=capacity
        )
        layout[:, row] = leveller.run(_MAX_ROUNDS)
        layout = _fill(layout, row, costs, lengths, capacity)
    return layout[:, (layout != EMPTY).any(axis=(0, 2))]  # filling may have emptied the last rows


def _fill(layout: np.ndarray, row: int, costs: np.ndarray, lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Fill a row that waits for one long example: move examples into it from later rows of the same rank.

    No bin may exceed the row's maximum cost or the capacity, so the row does not take longer, and later rows get
    shorter. Examples stay on their rank, so the balance of loss weight between ranks does not change.
    """
    cost_of = np.append(costs, 0)[layout[:, row]].sum(axis=1)
    limit = int(cost_of.max())
    if cost_of.mean() > _FULL_ENOUGH * limit or row == layout.shape[1] - 1:
        return layout
    bins = [[content[content != EMPTY].tolist() for content in rank] for rank in layout]
    for rank, cost in zip(bins, cost_of.tolist(), strict=True):
        room = capacity - int(lengths[rank[row]].sum())
        # Next row first, and in each row the most expensive example that still fits.
        for later in rank[row + 1 :]:
            for position in sorted(later, key=lambda i: -int(costs[i])):
                if cost + int(costs[position]) <= limit and int(lengths[position]) <= room:
                    later.remove(position)
                    rank[row].append(position)
                    cost, room = cost + int(costs[position]), room - int(lengths[position])
    return _as_slots([content for rank in bins for content in rank]).reshape(*layout.shape[:2], -1)


def _as_slots(bins: Sequence[Sequence[int]]) -> np.ndarray:
    """int [bins, largest number of items in a bin + 1]: positions, then ``EMPTY`` for slots that an item can move
    to."""
    slots = np.full((len(bins), max(map(len, bins)) + 1), EMPTY, dtype=np.int64)
    for row, content in enumerate(bins):
        slots[row, : len(content)] = content
    return slots
