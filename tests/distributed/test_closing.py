"""What a stage leaves behind in workers that go on to the next."""

import gc
import json
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from deepspeed.utils import groups
from torch.distributed import distributed_c10d

from sftkey_dist.config.training import ZeroConfig
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.checkpoint import CheckpointKeeper
from sftkey_dist.training.checkpoint.shards import _ShardReader, shard_name
from sftkey_dist.training.checkpoint.storage import FolderStorage
from sftkey_dist.training.engine.factory import make_engine
from tests.distributed.harness import metrics, run_ranks, train, weights_of
from tests.distributed.runs import jobs_of


def train_and_measure(jobs, out: Path) -> None:
    """Bytes of this rank's tensors after each stage."""
    taken = []
    for job in jobs:
        train([job])
        gc.collect()
        tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        taken.append(sum(storages.values()))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(taken))


def note_timeouts(job, out: Path) -> None:
    """Longest waits, in seconds, in the groups that DeepSpeed has made."""
    engine = make_engine(job)
    made = [group for group in (groups._WORLD_GROUP, groups._ZERO_PARAM_INTRA_PARALLEL_GROUP) if group is not None]
    waits = [group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in made]
    engine.close()
    if dist.get_rank() == 0:
        out.write_text(json.dumps(waits))


def two_stages(run_config, name: str, zero: ZeroConfig, max_steps: int = 3):
    config = run_config.model_copy(
        update={
            "run_dir": run_config.run_dir / name,
            "strategies": ("sftkey-tag",),
            "optimization": run_config.optimization.model_copy(update={"max_steps": max_steps}),
            "training": run_config.training.model_copy(update={"zero": zero}),
        }
    )
    return jobs_of(config)


def test_a_stage_leaves_nothing_to_the_next_and_secondary_partitions_change_nothing(run_config, tmp_path):
    plain = two_stages(run_config, "plain", ZeroConfig(max_gathered_gib=0))
    doubled = two_stages(run_config, "doubled", ZeroConfig(max_gathered_gib=0, secondary_partition_ranks=2))
    run_ranks(2, train_and_measure, [*plain, *doubled], tmp_path / "bytes.json")
    after_each = json.loads((tmp_path / "bytes.json").read_text())
    assert max(after_each) < 1000
    for one, other in zip(plain, doubled, strict=True):
        weights = weights_of(StageDir(other.stage_dir).model)
        for name, value in weights_of(StageDir(one.stage_dir).model).items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=0)


def test_groups_that_deepspeed_makes_wait_as_long_as_the_others(run_config, tmp_path):
    job, _ = two_stages(run_config, "waits", ZeroConfig(max_gathered_gib=0, secondary_partition_ranks=2))
    training = job.training.model_copy(update={"collective_timeout_seconds": 77})
    run_ranks(2, note_timeouts, job.model_copy(update={"training": training}), tmp_path / "waits.json")
    assert json.loads((tmp_path / "waits.json").read_text()) == [77, 77]


def resume_with_slow_storage(job, seconds_of_a_collective: int, seconds_of_storage: int) -> None:
    """Rank 1 verifies and reads the checkpoint, and rank 0 writes the next one, longer than a collective may wait."""
    distributed_c10d._set_pg_timeout(timedelta(seconds=seconds_of_a_collective))

    def slow_once(method, rank: int, *, is_late=lambda *_: True):
        waits = [seconds_of_storage] if dist.get_rank() == rank else []

        def called(*arguments):
            if waits and is_late(*arguments):
                time.sleep(waits.pop())
            return method(*arguments)

        return called

    CheckpointKeeper.verify = slow_once(CheckpointKeeper.verify, 1)
    _ShardReader.__call__ = slow_once(_ShardReader.__call__, 1)
    FolderStorage.writing = slow_once(FolderStorage.writing, 0, is_late=lambda _, folder, name: name == shard_name(0))
    train([job])


def test_ranks_wait_for_one_that_reads_or_writes_for_longer_than_a_collective_may_take(run_config, tmp_path):
    job, _ = two_stages(run_config, "slow", ZeroConfig(), max_steps=4)
    limits = {"checkpoint_every_steps": 1, "collective_timeout_seconds": 10}
    job = job.model_copy(update={"training": job.training.model_copy(update=limits)})
    run_ranks(2, train, [job], 1)
    run_ranks(2, resume_with_slow_storage, job, 10, 14)
    assert (StageDir(job.stage_dir).model / "config.json").is_file()
    assert len(metrics(job)) == 4
