"""How much of the model every rank holds whole."""

import json
from pathlib import Path

import numpy as np
import torch.distributed as dist
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

from sftkey_dist.config.training import TrainingConfig, ZeroConfig
from sftkey_dist.training.engine.zero import ZeroEngine
from sftkey_dist.training.forward.collate import pack
from tests.distributed.harness import run_ranks, weights_of
from tests.stage_job import make_stage_job

WEIGHTS = (0.0, 1.0)


def write_gathered_shares(model_dir: Path, gathered_gib: list[float], out: Path) -> None:
    """Share of the weights that lie whole on a rank between a forward and its backward pass."""
    row = pack([(np.arange(1, 9), np.array([0] + [1] * 7))], WEIGHTS, observe_all=False)
    shares = []
    for gib in gathered_gib:
        training = TrainingConfig(zero=ZeroConfig(max_gathered_gib=gib))
        engine = ZeroEngine(make_stage_job(out.parent, model_dir, out.parent, WEIGHTS, training=training))
        parameters = list(engine._engine.module.parameters())
        for _ in range(3):  # deepspeed learns the order of layers first
            loss = engine.forward(row).sum()
            whole = sum(p.ds_numel for p in parameters if p.ds_status == ZeroParamStatus.AVAILABLE)
            engine.backward(loss, 1.0, ends_step=True)
            engine.step(1e-3)
        shares.append(whole / sum(p.ds_numel for p in parameters))
        engine.close()
    if dist.get_rank() == 0:
        out.write_text(json.dumps(shares))


def test_no_more_stays_gathered_than_is_allowed(tiny_model, tmp_path):
    whole_gib = sum(value.nbytes for value in weights_of(tiny_model).values()) / 2**30
    run_ranks(2, write_gathered_shares, tiny_model, [0.0, whole_gib], tmp_path / "shares.json")
    nothing, everything = json.loads((tmp_path / "shares.json").read_text())
    assert (nothing, everything) == (0, 1)
