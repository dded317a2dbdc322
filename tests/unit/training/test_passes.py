from types import SimpleNamespace

import torch

from sftkey_dist.training.steps.passes import StepPasses


def drawn(step, rank, seed=5, world_size=2):
    stage = SimpleNamespace(job=SimpleNamespace(seed=seed), engine=SimpleNamespace(rank=rank, world_size=world_size))
    StepPasses(stage, None, SimpleNamespace(step=step), None, None)._set_seed()
    return tuple(torch.rand(3).tolist())


def test_dropout_is_drawn_anew_by_every_step_and_rank_and_alike_by_every_pass():
    by_place = {(step, rank): drawn(step, rank) for step in range(4) for rank in range(2)}
    assert len(set(by_place.values())) == len(by_place)
    assert drawn(3, 1) == by_place[3, 1] != drawn(3, 1, seed=6)
