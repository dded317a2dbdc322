"""Loss and segment metrics on examples that are not trained on; teacher-forced, without gradient."""

from collections.abc import Sequence

import numpy as np
import torch

from sftkey_dist.data.store import EncodedStore
from sftkey_dist.run_dir.artifacts.training import HeldOutMetrics
from sftkey_dist.sampler.alternatives import longest_first, rows_in_order
from sftkey_dist.sampler.level import EMPTY
from sftkey_dist.training.collate import PackedRow, pack
from sftkey_dist.training.engine import ZeroEngine
from sftkey_dist.training.loss import loss_sums, segment_metrics


class HeldOutSet:
    """Held-out examples in packed rows, dealt to ranks once; every rank has as many rows."""

    def __init__(
        self,
        store: EncodedStore,
        indices: np.ndarray,
        weights: Sequence[float],
        *,
        rank: int,
        world_size: int,
        micro_batch_tokens: int,
    ) -> None:
        """
        Args:
            store: where the examples lie.
            indices: of the held-out examples.
            weights: loss weight of each segment id.
            rank: of this process.
            world_size: number of ranks.
            micro_batch_tokens: most tokens in a row.
        """
        lengths = store.segment_counts[indices].sum(axis=1)
        layout = rows_in_order(longest_first(lengths, world_size), lengths, micro_batch_tokens)
        self._rows = [indices[row[row != EMPTY]] for row in layout[rank]]
        self._store = store
        self._weights = tuple(weights)

    def measure(self, engine: ZeroEngine) -> HeldOutMetrics:
        """``loss`` of the stage and every segment's metrics, equal on all ranks."""
        names = self._store.segment_names
        weighted_nll, weight = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        totals = torch.zeros(len(names), 3, dtype=torch.float64)
        for content in self._rows:
            row = self._row(content).to(engine.device)
            sums = loss_sums(engine.forward_without_dropout(row), row, len(names))
            totals += sums.by_segment.cpu()
            weighted_nll += sums.weighted_nll.double().cpu()
            weight += row.target_weights.sum().double().cpu()
        reduced = engine.all_reduce_sum(torch.cat([weighted_nll, weight, totals.flatten()]))
        loss = float(reduced[0] / reduced[1]) if reduced[1] > 0 else float("nan")
        return HeldOutMetrics(loss, segment_metrics(names, reduced[2:].view_as(totals)))

    def _row(self, content: np.ndarray) -> PackedRow:
        return pack([self._store.example(index) for index in content], self._weights, observe_all=True)
