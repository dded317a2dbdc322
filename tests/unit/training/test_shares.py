"""Processes that share the rows of a data rank: what each computes follows from its data rank, not from its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.sampler import CostModel
from sftkey_dist.strategy import Anchor
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.steps.running import RunningStage
from sftkey_dist.training.steps.step import run_step
from sftkey_dist.training.validation.held_out import HeldOutSet
from tests.stage_job import make_stage_job

LENGTHS = [5, 9, 14, 6, 7, 12, 8, 10]
HELD_OUT = np.array([1, 4, 6])
WEIGHTS = (0.0, 1.0)
WORLD_SIZE, DATA_RANKS = 4, 2
"""Each two processes share their rows."""


class Store:
    """Examples of two prompt tokens; every token is the number of its example."""

    segment_names = ("prompt", "answer")
    segment_counts = np.array([[2, length - 2] for length in LENGTHS])
    loss_weights = None

    def loss_weights_of(self, indices):
        return None

    def example(self, index):
        return np.full(LENGTHS[index], index), np.array([0, 0] + [1] * (LENGTHS[index] - 2))


@dataclass
class Engine:
    """Counts what it is asked to compute; every process adds the same to a sum."""

    rank: int
    world_size: int = WORLD_SIZE
    data_ranks: int = DATA_RANKS
    device = torch.device("cpu")
    cost = CostModel(1, 0)

    def __post_init__(self):
        self.data_rank = self.rank // (WORLD_SIZE // DATA_RANKS)
        self.rows, self.denominators, self.ends = [], [], []

    def place(self, row):
        return row

    def forward(self, row):
        self.rows.append(set(row.input_ids[0].tolist()))
        return torch.ones(len(row.targets), 2, requires_grad=True)

    def forward_without_dropout(self, row):
        return self.forward(row).detach()

    def backward(self, loss_sum, denominator, *, ends_step):
        self.denominators.append(denominator)
        self.ends.append(ends_step)

    def step(self, learning_rate):
        return 1.0

    def all_reduce_sum(self, values):
        return values * self.world_size


@pytest.fixture(scope="module")
def stages():
    job = make_stage_job(
        Path("stage"),
        Path("model"),
        Path("store"),
        WEIGHTS,
        optimization=OptimizationConfig(global_batch_size=5, num_epochs=1),
        training=TrainingConfig(micro_batch_tokens=16),
    )
    return [RunningStage(job, Store(), HELD_OUT, Engine(rank)) for rank in range(WORLD_SIZE)]


def test_a_step_is_planned_for_data_ranks_and_divided_by_what_all_of_them_hold(stages):
    plan = stages[0].planner().plan(0)
    trained = sorted(set(range(len(LENGTHS))) - set(HELD_OUT.tolist()))
    assert sorted(plan.example_indices) == trained
    for stage in stages:
        run_step(stage, plan, 1e-3, Stopwatch())
        engine = stage.engine
        assert engine.rows == [set(content) or {0} for content in plan.micro_batches(engine.data_rank)]
        assert set(engine.denominators) == {sum(LENGTHS[index] - 2 for index in trained)}
        assert engine.ends == [False] * (len(engine.ends) - 1) + [True]
    seen = [set().union(*stage.engine.rows) for stage in stages]
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert seen[0] | seen[2] >= set(trained)


def test_held_out_rows_are_dealt_to_data_ranks(stages):
    seen = []
    for stage in stages:
        stage.engine.rows.clear()
        found = HeldOutSet(stage, HELD_OUT).measure()
        seen.append(set().union(*stage.engine.rows))
        assert found.loss == pytest.approx(1.0)
        assert found.segments["answer"].nll == pytest.approx(1.0)
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert seen[0] | seen[2] >= set(HELD_OUT.tolist())


def test_the_divergence_of_a_step_is_its_mean_over_anchored_tokens_whatever_its_weight(stages):
    class Alone(Engine):
        def forward(self, row):
            return torch.ones(len(row.targets), 3, requires_grad=True) * torch.tensor([1.0, 1.0, 0.25])

    anchor = Anchor(3.0, (False, True), 1)
    job = stages[0].job.model_copy(update={"stage": replace(stages[0].job.stage, anchor=anchor)})
    shapes = [(length - 2, 1) for length in LENGTHS]
    start = SimpleNamespace(of=lambda index: (np.ones(shapes[index], np.int32), np.zeros(shapes[index], np.float32)))
    stage = RunningStage(job, Store(), HELD_OUT, Alone(0, world_size=1, data_ranks=1), start)
    record, _ = run_step(stage, stage.planner().plan(0), 1e-3, Stopwatch())
    assert record.divergence == pytest.approx(0.25)
    assert record.loss == pytest.approx(1 + 3.0 * 0.25)
