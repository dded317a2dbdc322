"""The plan in somebody else's training loop: torch's DataLoader, two ranks simulated one after the other."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sftkey_dist.sampler import CostModel, RankBatchSampler, StepPlanner

RANKS = 2


@pytest.fixture
def counts():
    stream = np.random.default_rng(0)
    return np.stack([stream.integers(1, 40, 50), stream.integers(1, 9, 50)], axis=1)


@pytest.fixture
def planner(counts):
    return StepPlanner(
        counts,
        (0.0, 1.0),
        seed=0,
        global_batch_size=7,
        num_epochs=2,
        max_steps=None,
        look_ahead_steps=2,
        data_ranks=RANKS,
        micro_batch_tokens=60,
        cost=CostModel(10, 1),
    )


class Rows(torch.utils.data.Dataset):
    """An example's answer tokens; the model's nll of each is its value times a parameter."""

    def __init__(self, counts):
        self._counts = counts

    def __len__(self):
        return len(self._counts)

    def __getitem__(self, index):
        return torch.full((int(self._counts[index, 1]),), float(index))


def collate(rows):
    return torch.cat([torch.zeros(0), *rows])


def steps_of_rank(planner, counts, rank, first_step=0):
    """The gradient of one rank in every step."""
    sampler = RankBatchSampler(planner, rank, first_step)
    batches = iter(DataLoader(Rows(counts), batch_sampler=sampler, collate_fn=collate))
    for plan in sampler.plans():
        parameter = torch.ones((), dtype=torch.float64, requires_grad=True)
        for _ in plan.micro_batches(rank):
            ((next(batches).double() * parameter).sum() / plan.loss_weight).backward()
        yield plan, float(parameter.grad)
    assert next(batches, None) is None


def test_gradients_of_all_ranks_add_up_to_those_of_the_whole_step(planner, counts):
    ranks = [list(steps_of_rank(planner, counts, rank)) for rank in range(RANKS)]
    assert len(ranks[0]) == planner.num_steps
    for (plan, one), (_, other) in zip(*ranks, strict=True):
        members = plan.example_indices
        tokens = counts[members, 1]
        assert one + other == pytest.approx((tokens * members).sum() / tokens.sum())


@pytest.mark.parametrize("first_step", [0, 1, 5, 13])
def test_a_sampler_resumed_at_any_step_gives_the_identical_remainder(planner, counts, first_step):
    whole = list(steps_of_rank(planner, counts, 0))
    assert [grad for _, grad in steps_of_rank(planner, counts, 0, first_step)] == [g for _, g in whole[first_step:]]


def test_the_loader_may_read_ahead_in_other_processes(planner, counts):
    plain = DataLoader(Rows(counts), batch_sampler=RankBatchSampler(planner, 1), collate_fn=collate)
    ahead = DataLoader(Rows(counts), batch_sampler=RankBatchSampler(planner, 1), collate_fn=collate, num_workers=2)
    assert all(torch.equal(a, b) for a, b in zip(plain, ahead, strict=True))


def test_a_rank_that_is_not_there_is_refused_and_the_number_of_batches_is_known(planner):
    for rank in (-1, RANKS):
        with pytest.raises(ValueError, match="is outside 0"):
            RankBatchSampler(planner, rank)
    sampler = RankBatchSampler(planner, 0)
    assert len(sampler) == len(list(sampler))
