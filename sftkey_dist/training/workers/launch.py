"""Runs stages on a cluster through Ray Train, again after transient failures.

Ray starts and watches the workers; when to try again, from which checkpoint and with how many ranks is decided here:
Ray would repeat every error, and would neither say what it lost nor use nodes that come back.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError
from ray.train import TrainingFailedError

from sftkey_dist.cluster.connection import draining_nodes, room_for, wait_for_room
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.errors import ConfigError, InterruptedRunError, StorageError, TrainingError
from sftkey_dist.files import write_text_atomically
from sftkey_dist.interrupts import stopping_gently
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.training.checkpoint import Storage, newest_step, open_storage
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.workers.failures import Failure, read_failure
from sftkey_dist.training.workers.worker_group import SECONDS_TO_LEAVE, WorkerGroup

_DRIVER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # When a node is about to be taken away, Ray ends the workers at the deadline; we save a checkpoint before it.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_POLL_SECONDS = 0.5
_SECONDS_TO_LEAVE_AFTER_AN_ERROR = 5.0
_SECONDS_BETWEEN_LOOKS_AT_NODES = 2.0


@contextmanager
def stage_runner(cluster: ClusterConfig, scratch: Path) -> Iterator["StageRunner"]:
    """Runs stages while the block lasts, on one group of workers as long as none fails.

    After an error the workers are dismissed too: the connection may go on, as in a process of Ray Tune's that runs one
    trial after another.

    Args:
        cluster: where, and what a worker needs.
        scratch: folder for what Ray Train insists on writing.
    """
    runner = StageRunner(cluster, scratch)
    try:
        yield runner
        runner.dismiss_workers()
    except BaseException:
        with suppress(RayError):  # the connection may be what failed
            runner.dismiss_workers(_SECONDS_TO_LEAVE_AFTER_AN_ERROR)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class StageRunner:
    """Runs one stage after another; see `stage_runner`."""

    def __init__(self, cluster: ClusterConfig, scratch: Path) -> None:
        self._cluster, self._scratch = cluster, scratch
        self._group: WorkerGroup | None = None

    def run_stage(self, job: StageJob) -> int | None:
        """Train a stage to its end, from its newest intact checkpoint, and go on after failures that may pass.

        Returns:
            The number of a signal that came too late to stop the stage, which the caller handles; None without one.

        Raises:
            TrainingError: workers were lost more often in a row than ``training.max_failures`` allows, or failed in a
                way that would repeat itself.
            UserError: a mistake that only the workers could find, such as a folder whose weights are incomplete.
            InterruptedRunError: a signal ended the run; what was trained is in a checkpoint, or an event says why not.
        """
        os.environ.update({name: os.environ.get(name, value) for name, value in self._environment(job).items()})
        stage, storage = StageDir(job.stage_dir), open_storage(job.checkpoints)
        failures_in_a_row, steps_done = 0, newest_step(storage)
        has_begun = steps_done > 0
        while True:
            steps_before = steps_done
            end = _attempt(job, self._cluster, self._group_for(job, has_begun=has_begun))
            has_begun = True
            if end.is_finished:
                return end.signal_number
            self.dismiss_workers()
            if end.signal_number is not None:
                if end.failure is not None:
                    _note(stage, "not_saved", f"no checkpoint was saved at the end: {end.failure.error}")
                raise InterruptedRunError(end.signal_number)
            steps_done = _newest_step_if_told(storage, steps_before)
            if end.failure is None:
                _note(stage, "paused", f"{end.reason}: the stage goes on from step {steps_done}")
                continue
            failures_in_a_row = 1 if steps_done > steps_before else failures_in_a_row + 1
            if not end.failure.is_transient or failures_in_a_row > job.training.max_failures:
                raise end.failure.error
            _note(
                stage,
                "restarted",
                f"{end.failure.error}; restart {failures_in_a_row} of {job.training.max_failures} in a row, from step "
                f"{steps_done}",
            )

    def dismiss_workers(self, most_seconds: float = SECONDS_TO_LEAVE) -> None:
        """End the workers, if there are any, and wait for them up to this time."""
        if self._group is not None:
            self._group.dismiss(most_seconds)
        self._group = None

    def _environment(self, job: StageJob) -> dict[str, str]:
        """Environment variables of the driver; those that the user has set keep their values."""
        timeout = str(job.training.collective_timeout_seconds)
        return _DRIVER_ENVIRONMENT | {
            "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": timeout,
            "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": timeout,
            # Ray gives up after a minute where others use the accelerators; `StartLimit` ends the wait instead.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(2 * self._cluster.start_timeout_seconds),
        }

    def _group_for(self, job: StageJob, *, has_begun: bool) -> WorkerGroup:
        """The workers of the stage before, if they run and are as many as there is room for; else new ones."""
        multiple = job.training.ranks_multiple
        num_workers = _num_workers(self._cluster, multiple, has_begun=has_begun)
        if self._group is not None and (not self._group.is_there or self._group.num_workers != num_workers):
            self.dismiss_workers()
        if self._group is None:
            timeout = job.training.collective_timeout_seconds
            self._group = WorkerGroup(self._cluster, num_workers, timeout, self._scratch)
        return self._group


def _newest_step_if_told(storage: Storage, otherwise: int) -> int:
    """The newest checkpoint's step, or ``otherwise``: storage whose outage ended the attempt may not answer yet."""
    try:
        return newest_step(storage)
    except StorageError:
        return otherwise


@dataclass
class _End:
    """How an attempt at a stage ended."""

    is_finished: bool = False
    failure: Failure | None = None
    signal_number: int | None = None
    reason: str = ""


def _attempt(job: StageJob, cluster: ClusterConfig, group: WorkerGroup) -> _End:
    end = _End()
    with _stop_request(StageDir(job.stage_dir)) as ask, stopping_gently(ask.by_signal) as stop:
        looked_at_nodes, reason_to_wait = time.monotonic(), ""
        try:
            group.begin(job)
            while (is_finished := group.wait(_POLL_SECONDS)) is None:
                if stop.signal_number is not None and not ask.can_be_heard:
                    break  # before the workers have started, there is nothing to save
                if time.monotonic() - looked_at_nodes > _SECONDS_BETWEEN_LOOKS_AT_NODES and not end.reason:
                    looked_at_nodes = time.monotonic()
                    if not reason_to_wait and (reason_to_wait := group.reason_to_wait()):
                        _note(StageDir(job.stage_dir), "waiting", reason_to_wait)
                    end.reason = _reason_to_pause(cluster, group, job.training.ranks_multiple)
                    if end.reason:
                        ask.write()
            end.is_finished = bool(is_finished)
        except (TrainingFailedError, RayError) as error:
            end.failure = read_failure(job, group.num_workers, error)
        end.signal_number = stop.signal_number
    return end


class _StopRequest:
    """The file whose presence asks the workers to save a checkpoint and end."""

    def __init__(self, stage: StageDir) -> None:
        self._stage = stage

    def write(self) -> None:
        write_text_atomically(self._stage.stop_request, "")

    @property
    def can_be_heard(self) -> bool:
        """Whether a rank is at work on the stage."""
        return self._stage.heartbeats.is_dir()

    def by_signal(self) -> None:
        self.write()
        saving = "saving a checkpoint after this step, then ending; a second signal ends the run at once"
        _note(self._stage, "stopping", saving if self.can_be_heard else "ending before the first step")


@contextmanager
def _stop_request(stage: StageDir) -> Iterator[_StopRequest]:
    stage.path.mkdir(parents=True, exist_ok=True)
    stage.stop_request.unlink(missing_ok=True)
    shutil.rmtree(stage.heartbeats, ignore_errors=True)  # of an earlier attempt
    try:
        yield _StopRequest(stage)
    finally:
        stage.stop_request.unlink(missing_ok=True)


def _reason_to_pause(cluster: ClusterConfig, group: WorkerGroup, multiple: int) -> str:
    """Why the stage should be restarted on other nodes; empty when there is no reason."""
    if draining_nodes() & group.nodes:
        return "a node is being taken away"
    if group.num_workers < cluster.num_workers and _rounded_down(room_for(cluster), multiple) > group.num_workers:
        return "there are nodes for more ranks"
    return ""


def _num_workers(cluster: ClusterConfig, multiple: int, *, has_begun: bool) -> int:
    """Number of ranks that there is room for; waits for nodes where there is too little.

    Args:
        cluster: how many there should be, and at least.
        multiple: what must divide the number, because ranks form groups.
        has_begun: whether the stage has run before.
    """
    if cluster.min_workers is not None:
        cluster = cluster.model_copy(update={"min_workers": _rounded_up(cluster.min_workers, multiple)})
    try:
        return _rounded_down(wait_for_room(cluster, cluster.num_workers), multiple)
    except ConfigError as error:
        if has_begun:
            raise TrainingError(f"too few nodes are left: {error}") from error
        raise


def _rounded_down(number: int, multiple: int) -> int:
    """The largest multiple of ``multiple`` that is not above ``number``."""
    return number // multiple * multiple


def _rounded_up(number: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``number``."""
    return -(-number // multiple) * multiple


def _note(stage: StageDir, event: str, message: str) -> None:
    append_event(stage.events, event, message)
