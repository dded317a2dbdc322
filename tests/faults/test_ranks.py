"""A rank that hangs, falls silent or plans something else: the others' wait ends, and says for whom."""

import json
import re
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from sftkey_dist.errors import StorageError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler import StepPlanner
from sftkey_dist.training.checkpoint import CheckpointKeeper
from sftkey_dist.training.diagnostics.heartbeat import Heartbeat, who_is_missing
from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.engine.store_collectives import StoreCollectives
from sftkey_dist.training.engine.weights import StageWeights
from sftkey_dist.training.job import StageJob
from tests.distributed.harness import metrics, run_ranks, train
from tests.faults.conftest import NUM_STEPS

SECONDS = 5


def sleep_on_rank_1(job: StageJob) -> None:
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=SECONDS))  # type: ignore[attr-defined]
    plan = StepPlanner.plan

    def wait(self, step):
        if dist.get_rank() == 1 and step == 4:
            time.sleep(3 * SECONDS)
        return plan(self, step)

    StepPlanner.plan = wait  # type: ignore[method-assign]
    train([job])


def test_a_rank_that_hangs_ends_the_wait_of_the_others_and_is_named(tmp_path, make_job):
    job = make_job(tmp_path)
    job = job.model_copy(update={"training": job.training.model_copy(update={"collective_timeout_seconds": SECONDS})})
    started = time.monotonic()
    with pytest.raises(ProcessRaisedException, match=r"[Tt]imed out"):
        run_ranks(2, sleep_on_rank_1, job)
    assert time.monotonic() - started < 60
    missing = who_is_missing(StageDir(job.stage_dir), 2, SECONDS)
    assert "rank 1 at step 4 (data)" in missing
    hanging, waiting = (StageDir(job.stage_dir).stack(rank).read_text() for rank in (1, 0))
    sleeps = re.compile(r'test_ranks\.py", line \d+ in wait\b')  # the function above
    assert sleeps.search(hanging)
    assert not sleeps.search(waiting)
    assert "deepspeed" in waiting


def test_silent_ranks_are_told_from_waiting_ones(tmp_path):
    stage, watch = StageDir(tmp_path), Stopwatch()
    assert who_is_missing(stage, 2, 5) == "no heartbeat from ranks 0, 1"
    with Heartbeat(stage, 0, watch, 5) as zero, watch.phase("forward"):
        zero.step = 3
        with Heartbeat(stage, 1, watch, 5) as one:
            one.step = 3
            time.sleep(0.6)
        time.sleep(1.5)
    assert who_is_missing(stage, 2, 5) == "no sign of life from rank 1 at step 3 (forward)"
    assert who_is_missing(stage, 3, 5) == "no heartbeat from ranks 2"


def wait_for_a_slow_first_rank(folder) -> None:
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1))  # type: ignore[attr-defined]
    patient, impatient = StoreCollectives(timeout_seconds=60), StoreCollectives(timeout_seconds=1)
    if dist.get_rank() == 0:
        time.sleep(3)
    patient.after_first_rank()
    notes = patient.gather(f"rank {dist.get_rank()}")
    said = ""
    try:
        if dist.get_rank() == 0:
            time.sleep(4)
        impatient.after_first_rank()
    except StorageError as error:
        said = str(error)
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps([notes, said]))


def test_ranks_wait_for_what_takes_long_and_name_it(tmp_path):
    """Longer than a collective may take; nobody holds one."""
    run_ranks(3, wait_for_a_slow_first_rank, tmp_path)
    for rank in range(3):
        notes, said = json.loads((tmp_path / f"{rank}.json").read_text())
        assert notes == ["rank 0", "rank 1", "rank 2"]
        waits = "still reading, writing or generating after 1 s (training.storage_timeout_seconds)"
        expected = "" if rank == 0 else f"ranks 0 are {waits}"
        assert said == expected


def fail_to_export(job: StageJob) -> None:
    commit = CheckpointKeeper._commit

    def commit_late(*arguments):  # the other rank must not fail, and end this one, before
        time.sleep(0.5)
        commit(*arguments)

    CheckpointKeeper._commit = commit_late  # type: ignore[method-assign]
    save_pretrained = StageWeights.save_pretrained

    def save(*arguments, with_weights=True, **others):
        if with_weights:
            raise OSError("No space left on device")
        save_pretrained(*arguments, with_weights=False, **others)

    StageWeights.save_pretrained = save  # type: ignore[method-assign]
    train([job])


def test_an_export_that_fails_is_repeated_without_a_step(tmp_path, make_job):
    job = make_job(tmp_path)
    with pytest.raises(ProcessRaisedException, match="No space left"):
        run_ranks(2, fail_to_export, job)
    timings = (job.stage_dir / "timings.jsonl").read_bytes()
    assert len(metrics(job)) == NUM_STEPS
    run_ranks(2, train, [job])
    assert (job.stage_dir / "model/model.safetensors").is_file()
    assert len(metrics(job)) == NUM_STEPS
    assert (job.stage_dir / "timings.jsonl").read_bytes() == timings, "no step was run again"


def plan_otherwise_on_rank_1(job: StageJob) -> None:
    if dist.get_rank() == 1:
        job = job.model_copy(update={"seed": job.seed + 1})
    train([job])


def test_ranks_that_plan_differently_stop_before_the_update(tmp_path, make_job):
    job = make_job(tmp_path)
    with pytest.raises(ProcessRaisedException, match="ranks planned step 0 differently"):
        run_ranks(2, plan_otherwise_on_rank_1, job)
    assert not (job.stage_dir / "metrics.jsonl").read_text()
