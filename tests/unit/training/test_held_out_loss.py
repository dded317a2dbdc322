from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sftkey_dist.config.objective import Objective
from sftkey_dist.training.validation.held_out import HeldOutSet
from tests.stage_job import make_stage_job


class Store:
    """Two examples of a prompt token, then reasoning and answer; the second weighs three times as much."""

    segment_names = ("prompt", "reasoning", "answer")
    segment_counts = np.array([[1, 2, 1], [1, 1, 2]])
    loss_weights = np.array([1.0, 3.0], np.float32)

    def loss_weights_of(self, indices):
        return self.loss_weights[np.asarray(indices)]

    def example(self, index):
        return np.array([9, 1, 2, 3]) + 10 * index, np.array([[0, 1, 1, 2], [0, 1, 2, 2]][index])


class Engine:
    """The nll of a token is a tenth of its number."""

    data_rank, data_ranks, world_size = 0, 1, 1

    def place(self, row):
        return row

    def forward_without_dropout(self, row):
        return torch.stack([row.targets / 10, torch.ones(len(row.targets))], dim=1)

    def all_reduce_sum(self, values):
        return values


def held_out_loss(tmp_path, **stage) -> float:
    job = make_stage_job(tmp_path, tmp_path, tmp_path, (0.0, 1.0, 2.0))
    job = job.model_copy(update={"stage": replace(job.stage, **stage)})
    running = SimpleNamespace(job=job, store=Store(), engine=Engine())
    return HeldOutSet(running, np.array([0, 1])).measure().loss


def test_the_held_out_loss_is_that_of_training(tmp_path):
    """Weighted by row and segment, with a mean for each segment, and by the objective."""
    reasoning, answer = [(0.1, 1), (0.2, 1), (1.1, 3)], [(0.3, 1), (1.2, 3), (1.3, 3)]

    def mean(*weighted):
        return sum(nll * weight for nll, weight in weighted) / sum(weight for _, weight in weighted)

    everything = [*reasoning, *((nll, 2 * weight) for nll, weight in answer)]
    assert held_out_loss(tmp_path) == pytest.approx(mean(*everything))
    by_segment = held_out_loss(tmp_path, segment_groups=(0, 0, 1))
    assert by_segment == pytest.approx(mean(*reasoning) + 2 * mean(*answer))
    linear = (Objective(), Objective(), Objective(kind="power", exponent=1.0))
    bounded = [*reasoning, *((1 - np.exp(-nll), 2 * weight) for nll, weight in answer)]
    assert held_out_loss(tmp_path, objectives=linear) == pytest.approx(mean(*bounded))
