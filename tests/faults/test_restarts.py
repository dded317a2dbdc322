"""When a stage is tried again, and when it is not: Ray's side replaced, the decisions real."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.errors import ConfigError, DataError, InterruptedRunError, StorageError, TrainingError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.training.checkpoint import newest_step
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.workers import launch
from sftkey_dist.training.workers.failures import read_failure
from sftkey_dist.training.workers.worker_group import WorkerGroup

pytestmark = pytest.mark.single_process
LOST_PEER = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4711")


def run_stage(job: StageJob) -> int | None:
    return launch.StageRunner(ClusterConfig(), Path()).run_stage(job)


def in_worker(error: Exception) -> UserExceptionWithTraceback:
    return UserExceptionWithTraceback(error, f"Traceback (most recent call last):\n{type(error).__name__}: {error}")


def group_error(**by_rank: Exception) -> WorkerGroupError:
    return WorkerGroupError("workers failed", {int(rank[1:]): error for rank, error in by_rank.items()})


class Script:
    """What each attempt does: the steps done in its newest checkpoint, and how it ends."""

    def __init__(self, monkeypatch, job: StageJob, *attempts: tuple[int, Exception | None]) -> None:
        self.attempts, self.made, self.job = attempts, 0, job
        monkeypatch.setattr(launch, "WorkerGroup", lambda *_: self)
        monkeypatch.setattr(launch, "wait_for_room", lambda cluster, wanted: wanted)
        monkeypatch.setattr(launch, "draining_nodes", frozenset)

    num_workers, nodes, is_there = 2, frozenset(), True

    def begin(self, job: StageJob) -> None:
        pass

    def dismiss(self, most_seconds: float) -> None:
        self.most_seconds = most_seconds

    def wait(self, seconds: float) -> bool:
        steps, error = self.attempts[self.made]
        self.made += 1
        folder = Path(self.job.checkpoints) / f"step_{steps:08d}-{self.made}"
        if steps:
            folder.mkdir(parents=True)
            (folder / "manifest.json").touch()
        if error is not None:
            raise error
        return True


@pytest.fixture
def job(make_job, tmp_path) -> StageJob:
    job = make_job(tmp_path)
    return job.model_copy(update={"training": job.training.model_copy(update={"max_failures": 2})})


def test_what_would_fail_again_is_not_tried_again(monkeypatch, job):
    """The rank that closed the connection is not the one that is to blame."""
    for cause, kind in ((ValueError("a mistake"), TrainingError), (DataError("row 7 is empty"), DataError)):
        script = Script(monkeypatch, job, (0, group_error(r0=in_worker(LOST_PEER), r1=in_worker(cause))))
        with pytest.raises(kind, match=str(cause)):
            run_stage(job)
        assert script.made == 1


def test_a_crash_loop_ends_and_one_with_progress_does_not(monkeypatch, job):
    lost = group_error(r0=in_worker(LOST_PEER), r1=ActorDiedError())
    script = Script(monkeypatch, job, *[(0, lost)] * 3)
    with pytest.raises(TrainingError, match="rank 1: its process was lost"):
        run_stage(job)
    assert script.made == 3, "the first attempt and two restarts"
    script = Script(monkeypatch, job, *[(3 * n, lost) for n in range(1, 8)], (0, None))
    run_stage(job)
    assert script.made == 8, "each attempt came a checkpoint further"
    events = read_records(StageDir(job.stage_dir).events)
    assert "restart 1 of 2 in a row, from step 21" in events[-1]["message"]


def test_a_storage_that_is_still_away_when_its_outage_has_ended_an_attempt_is_asked_again_by_the_next(monkeypatch, job):
    def away_at_the_second_question(storage):
        asked.append(storage)
        if len(asked) == 2:
            raise StorageError("the store does not answer")
        return newest_step(storage)

    asked = []
    monkeypatch.setattr(launch, "newest_step", away_at_the_second_question)
    outage = group_error(r0=in_worker(StorageError("the store does not answer")))
    script = Script(monkeypatch, job, (3, outage), (6, None))
    run_stage(job)
    assert script.made == 2


def interrupted_script(monkeypatch, job, end):
    """A signal comes while the workers are at work."""

    class Interrupted(Script):
        def wait(self, seconds: float) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
            return super().wait(seconds)

    return Interrupted(monkeypatch, job, (3, end))


def test_a_signal_when_a_stage_is_as_good_as_finished_is_handed_on(monkeypatch, job):
    interrupted_script(monkeypatch, job, None)
    assert run_stage(job) == signal.SIGTERM


def test_a_signal_does_not_hide_that_nothing_could_be_saved(monkeypatch, job):
    interrupted_script(monkeypatch, job, group_error(r0=in_worker(TrainingError("the disk is full"))))
    with pytest.raises(InterruptedRunError):
        run_stage(job)
    messages = [record["message"] for record in read_records(StageDir(job.stage_dir).events)]
    assert "the disk is full" in messages[-1]


def test_a_run_that_has_begun_keeps_its_checkpoints_when_nodes_do_not_come_back(monkeypatch, job):
    Script(monkeypatch, job, (3, group_error(r1=ActorDiedError())))
    rooms = iter([2])

    def room(cluster, wanted):
        try:
            return next(rooms)
        except StopIteration:
            raise ConfigError("room for 1") from None

    monkeypatch.setattr(launch, "wait_for_room", room)
    with pytest.raises(TrainingError, match="too few nodes are left: room for 1"):
        run_stage(job)


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        (group_error(r0=in_worker(LOST_PEER)), True),
        (group_error(r0=in_worker(RuntimeError("NCCL error: unhandled system error"))), True),
        (group_error(r0=in_worker(RuntimeError("CUDA error: an illegal memory access"))), True),
        (group_error(r0=in_worker(RuntimeError("size mismatch"))), False),
        (group_error(r0=in_worker(TrainingError("the connection timed out"))), False),
        (group_error(r0=in_worker(StorageError("s3://runs does not answer"))), True),
        (group_error(r0=ActorDiedError()), True),
        (ControllerError(RuntimeError("no room")), True),
        (ActorDiedError(), True),
        (group_error(r0=OutOfMemoryError("the node ran out of memory")), True),
    ],
)
def test_a_lost_process_or_connection_is_told_from_a_mistake(job, error, is_transient):
    assert read_failure(job, 2, error).is_transient == is_transient


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No CUDA GPUs are available", "NVIDIA's driver on this node: none; torch is built for CUDA"),
        ("ncclSystemError: no GPUs found", "NVIDIA's driver on this node: none"),
        ("CUDA out of memory. Tried to allocate 2.32 GiB", "training.micro_batch_tokens"),
        ("CUDA error: out of memory", "training.zero.offload=cpu"),
    ],
)
def test_no_device_is_final_and_too_little_memory_says_what_to_lower(job, text, said):
    failure = read_failure(job, 2, group_error(r0=in_worker(RuntimeError(text))))
    assert not failure.is_transient
    assert text in str(failure.error)
    assert said in str(failure.error)


FULL_MEMORY = """Task was killed.
4 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1) was 22.32GB \
used / 23.54GB limit (0.948339)
Object store memory usage: [- objects spillable: 1]
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/."""


@pytest.mark.parametrize("wrapped", [OutOfMemoryError(FULL_MEMORY), group_error(r1=OutOfMemoryError(FULL_MEMORY))])
def test_memory_that_ran_out_is_named_with_its_size_and_what_to_lower(job, wrapped):
    failure = read_failure(job, 2, wrapped)
    assert failure.is_transient
    assert "memory of a node ran out (22.32GB of 23.54GB in use)" in str(failure.error)
    assert "lower cluster.num_workers, training.micro_batch_tokens or" in str(failure.error)
    assert "Refer to the documentation" not in str(failure.error)


def test_workers_are_dismissed_although_their_queue_was_lost(monkeypatch):
    """The run goes on with another group; the error of the queue is not its end."""

    class Lost:
        def __getattr__(self, name):
            return self

        def remote(self, *arguments):
            return "lost"

    def lost(reference):
        raise ActorDiedError

    killed = []
    monkeypatch.setattr("ray.get", lost)
    monkeypatch.setattr("ray.kill", killed.append)
    group = object.__new__(WorkerGroup)
    group._queue, left = Lost(), threading.Event()
    group._fit = threading.Thread(target=left.wait)
    group._fit.start()
    threading.Timer(0.2, left.set).start()
    group.dismiss(30)
    assert not group.is_there, "its workers were waited for"
    assert killed == [group._queue]


def test_a_lost_process_names_the_rank_that_the_others_waited_for(job):
    """NCCL's watchdog ends the ranks that wait; the frozen one lives on, and no error speaks of it."""
    stage = StageDir(job.stage_dir)
    stage.heartbeats.mkdir(parents=True)
    for rank in range(3):
        stage.heartbeat(rank).write_text(json.dumps({"step": 7, "phase": "backward", "pid": 1}))
    long_ago = time.time() - 3600
    os.utime(stage.heartbeat(2), (long_ago, long_ago))
    failure = read_failure(job, 3, group_error(r0=ActorDiedError()))
    assert failure.is_transient
    assert "no sign of life from rank 2 at step 7 (backward)" in str(failure.error)


def test_a_timeout_names_the_missing_rank(job):
    stage = StageDir(job.stage_dir)
    stage.heartbeats.mkdir(parents=True)
    for rank, phase in enumerate(("forward", "forward", "data")):
        stage.heartbeat(rank).write_text(json.dumps({"step": 7, "phase": phase, "pid": 1}))
    failure = read_failure(job, 3, group_error(r0=in_worker(RuntimeError("Timed out waiting 5000ms for recv"))))
    assert "found rank 2 at step 7 (data)" in str(failure.error)


def test_an_error_between_stages_ends_the_workers_too(monkeypatch, job, tmp_path):
    """A process that trains one run after another would keep them."""
    script = Script(monkeypatch, job, (3, None))

    def fail_after_a_stage():
        with launch.stage_runner(ClusterConfig(), tmp_path / "ray") as runner:
            runner.run_stage(job)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail_after_a_stage()
    assert script.most_seconds < 10, "they may be at work, and an error should be told soon"
