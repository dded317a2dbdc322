"""What a stage leaves behind in workers that go on to the next."""

import gc
import json
from pathlib import Path

import torch
import torch.distributed as dist

from sftkey_dist.config.training import ZeroConfig
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.stages import plan_stages, stage_job
from tests.distributed.harness import run_ranks, train


def train_and_measure(jobs, out: Path) -> None:
    """Bytes of this rank's tensors after each stage, and of its model's weights."""
    taken = []
    for job in jobs:
        train([job])
        gc.collect()
        tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        taken.append(sum(storages.values()))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(taken))


def two_stages(run_config, zero: ZeroConfig):
    config = run_config.model_copy(
        update={
            "strategies": ("sftkey-tag",),
            "optimization": run_config.optimization.model_copy(update={"max_steps": 3}),
            "training": run_config.training.model_copy(update={"zero": zero}),
        }
    )
    preparation = prepare(config)
    (plan,) = plan_stages(config, preparation).values()
    (strategy,) = preparation.strategies
    return [stage_job(config, preparation, strategy, planned) for planned in plan]


def test_a_stage_leaves_no_tensors_to_the_next(run_config, tmp_path):
    jobs = two_stages(run_config, ZeroConfig(max_gathered_gib=0))
    run_ranks(2, train_and_measure, jobs, tmp_path / "bytes.json")
    print((tmp_path / "bytes.json").read_text())
    first, second = json.loads((tmp_path / "bytes.json").read_text())
    assert second <= first < 100_000


def test_stages_follow_each_other_with_secondary_partitions(run_config):
    run_ranks(2, train, two_stages(run_config, ZeroConfig(secondary_partition_ranks=2)))
