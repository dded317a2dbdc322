"""Loss and segment metrics on examples that are not trained on; teacher-forced, without gradient."""

import numpy as np
import torch

from sftkey_dist.run_dir.artifacts.training import HeldOutMetrics
from sftkey_dist.sampler import weighted_targets
from sftkey_dist.sampler.alternatives import longest_first, rows_in_order
from sftkey_dist.sampler.level import EMPTY
from sftkey_dist.training.forward.collate import PackedRow, pack
from sftkey_dist.training.forward.loss import loss_sums, segment_metrics
from sftkey_dist.training.forward.objective import objective_losses
from sftkey_dist.training.steps.running import RunningStage


class HeldOutSet:
    """Held-out examples in packed rows, dealt to ranks once; every rank has as many rows."""

    def __init__(self, stage: RunningStage, indices: np.ndarray) -> None:
        """
        Args:
            stage: the stage.
            indices: of the held-out examples to measure on.
        """
        engine, lengths = stage.engine, stage.store.segment_counts[indices].sum(axis=1)
        most_tokens = stage.job.training.micro_batch_tokens
        layout = rows_in_order(longest_first(lengths, engine.data_ranks), lengths, most_tokens)
        self._rows = [indices[row[row != EMPTY]] for row in layout[engine.data_rank]]
        self._stage = stage
        targets = weighted_targets(stage.store.segment_counts[indices], stage.store.loss_weights_of(indices))
        scale = stage.job.stage.scale(targets)
        self._weights = scale.weights
        # 1 if the loss is one mean over all tokens.
        self._loss_of_mean = float(np.dot(targets, scale.weights)) / scale.denominator if scale.denominator else 1.0

    def measure(self) -> HeldOutMetrics:
        """Measure the stage's ``loss`` and every segment's metrics; all ranks call it together, and get the same."""
        engine, names = self._stage.engine, self._stage.store.segment_names
        objectives = self._stage.job.stage.objectives
        weighted, weight = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        totals = torch.zeros(len(names), 3, dtype=torch.float64)
        for content in self._rows:
            row = engine.place(self._row(content))
            losses = engine.forward_without_dropout(row)
            sums = loss_sums(losses, row, len(names), objective_losses(losses, row.target_segments, objectives))
            totals += sums.by_segment.cpu()
            weighted += sums.weighted.double().cpu()
            weight += row.target_weights.sum().double().cpu()
        reduced = engine.all_reduce_sum(torch.cat([weighted, weight, totals.flatten()]))
        loss = self._loss_of_mean * float(reduced[0] / reduced[1]) if reduced[1] > 0 else float("nan")
        return HeldOutMetrics(loss, segment_metrics(names, reduced[2:].view_as(totals)))

    def _row(self, content: np.ndarray) -> PackedRow:
        examples = [self._stage.store.example(index) for index in content]
        weights = self._stage.store.loss_weights_of(content)
        return pack(examples, self._weights, observe_all=True, example_weights=weights)
