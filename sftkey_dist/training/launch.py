"""Run a stage on a cluster through Ray Train's TorchTrainer, as often as it takes.

Ray starts and watches the workers; when to try again, from which checkpoint and with how many ranks is decided here:
Ray would repeat every error, and would neither say what it lost nor use nodes that come back.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError
from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend as RayTorchBackend

from sftkey_dist.cluster import draining_nodes, room_for, wait_for_room
from sftkey_dist.config.schema import ClusterConfig
from sftkey_dist.errors import ConfigError, InterruptedRunError, TrainingError
from sftkey_dist.interrupts import stopping_gently
from sftkey_dist.journal import append_records
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.checkpoint import new_attempt, newest_step, open_storage
from sftkey_dist.training.failures import Failure, read_failure
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.worker import train_worker

_DRIVER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Its reaction to a node that is taken away is to end the workers at the deadline; ours is a checkpoint before it.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
CPU_ALLOCATOR = {
    # Activations come and go every micro-batch. By default glibc hands large ones back to the kernel each time, and
    # the page faults of getting them again cost a tenth to a fifth of a step; huge pages save the rest of them.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {"hugetlb": 1, "trim_threshold": 2**34, "mmap_threshold": 2**30}.items()
    )
}
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_LOOKS_AT_NODES = 2.0


def run_stage(job: StageJob, cluster: ClusterConfig) -> int | None:
    """Train a stage to its end, from its newest checkpoint that is whole, through what can be survived.

    Returns:
        A signal that came when the stage could only be finished: record it, then end. None without one.

    Raises:
        TrainingError: workers were lost more often in a row than ``training.max_failures`` allows, or failed in a way
            that would repeat itself.
        UserError: a mistake that only the workers could find, such as a folder whose weights are incomplete.
        InterruptedRunError: a signal ended the run; what was trained is in a checkpoint, or an event says why not.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _environment(job).items()})
    stage, storage = StageDir(job.stage_dir), open_storage(job.checkpoints)
    failures_in_a_row = 0
    while True:
        steps_before = newest_step(storage)
        end = _attempt(job, cluster, _num_workers(cluster, steps_before))
        if end.is_finished:
            return end.signal_number
        if end.signal_number is not None:
            if end.failure is not None:
                _note(stage, "not_saved", f"no checkpoint was saved at the end: {end.failure.error}")
            raise InterruptedRunError(end.signal_number)
        steps_done = newest_step(storage)
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


@dataclass
class _End:
    """How a group of workers ended."""

    result: Result | None = None
    failure: Failure | None = None
    signal_number: int | None = None
    reason: str = ""

    @property
    def is_finished(self) -> bool:
        return self.result is not None and self.result.return_value is True


@dataclass
class _Fit:
    """Ray's call that returns when the workers have ended, on another thread: this one takes signals."""

    trainer: TorchTrainer
    result: Result | None = None
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.trainer.fit()
        except BaseException as error:
            self.error = error


def _attempt(job: StageJob, cluster: ClusterConfig, num_workers: int) -> _End:
    stage, end, draining = StageDir(job.stage_dir), _End(), draining_nodes()
    with _stop_request(stage) as ask, stopping_gently(ask.by_signal) as stop:
        fit = _Fit(_trainer(job, cluster, num_workers))
        looked_at_nodes = time.monotonic()
        while fit.thread.is_alive():
            fit.thread.join(_SECONDS_BETWEEN_LOOKS)
            if time.monotonic() - looked_at_nodes > _SECONDS_BETWEEN_LOOKS_AT_NODES and not end.reason:
                looked_at_nodes = time.monotonic()
                end.reason = _reason_to_pause(cluster, num_workers, draining)
                if end.reason:
                    ask.write()
        end.signal_number = stop.signal_number
    end.result = fit.result
    if isinstance(fit.error, TrainingFailedError | RayError):
        end.failure = read_failure(job, num_workers, fit.error)
    elif fit.error is not None:
        raise fit.error
    return end


class _StopRequest:
    """The file that asks the workers to save and end."""

    def __init__(self, stage: StageDir) -> None:
        self._stage = stage

    def write(self) -> None:
        self._stage.stop_request.touch()

    def by_signal(self) -> None:
        self.write()
        _note(self._stage, "stopping", "saving a checkpoint after this step, then ending; once more ends at once")


@contextmanager
def _stop_request(stage: StageDir) -> Iterator[_StopRequest]:
    stage.path.mkdir(parents=True, exist_ok=True)
    stage.stop_request.unlink(missing_ok=True)
    shutil.rmtree(stage.heartbeats, ignore_errors=True)  # of an earlier attempt
    try:
        yield _StopRequest(stage)
    finally:
        stage.stop_request.unlink(missing_ok=True)
        shutil.rmtree(stage.ray_storage, ignore_errors=True)


def _reason_to_pause(cluster: ClusterConfig, num_workers: int, draining: frozenset[str]) -> str:
    """Empty when there is none; nodes that were ``draining`` when the workers started have none of them."""
    if draining_nodes() - draining:
        return "a node is being taken away"
    if num_workers < cluster.num_workers and room_for(cluster) > num_workers:
        return "there are nodes for more ranks"
    return ""


def _num_workers(cluster: ClusterConfig, steps_done: int) -> int:
    """Ranks that there is room for; a stage that has begun ends with what it has when nodes do not come back."""
    try:
        return wait_for_room(cluster, cluster.num_workers)
    except ConfigError as error:
        if steps_done:
            raise TrainingError(f"the nodes that are left are too few: {error}") from error
        raise


def _note(stage: StageDir, event: str, message: str) -> None:
    append_records(stage.events, [{"event": event, "message": message}])


def _environment(job: StageJob) -> dict[str, str]:
    """Of the driver; what the user has set stays."""
    timeout = str(job.training.collective_timeout_seconds)
    return _DRIVER_ENVIRONMENT | {
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": timeout,
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": timeout,
    }


class _TorchBackend(RayTorchBackend):
    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Workers end with their process group; asking each to leave it first waits 30 s for one that is frozen."""


class _TorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[RayTorchBackend]:
        """See TorchConfig."""
        return _TorchBackend


def _trainer(job: StageJob, cluster: ClusterConfig, num_workers: int) -> TorchTrainer:
    on_gpu, attempt = cluster.gpus_per_worker > 0, new_attempt()
    return TorchTrainer(
        train_worker,
        train_loop_config={
            "job": job.model_dump(mode="json"),
            "num_threads": cluster.cpus_per_worker,
            "attempt": attempt,
        },
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if on_gpu else {}),
        ),
        torch_config=_TorchConfig(
            backend="nccl" if on_gpu else "gloo", timeout_s=job.training.collective_timeout_seconds
        ),
        run_config=RunConfig(
            name=attempt,
            storage_path=str(StageDir(job.stage_dir).ray_storage),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3, max_preemption_failures=0),
            worker_runtime_env={"env_vars": _worker_environment(cluster)},
        ),
    )


def _worker_environment(cluster: ClusterConfig) -> dict[str, str]:
    environment = {
        "DS_ACCELERATOR": "cuda" if cluster.gpus_per_worker else "cpu",
        "OMP_NUM_THREADS": str(cluster.cpus_per_worker),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if not cluster.gpus_per_worker:
        environment |= CPU_ALLOCATOR
    if cluster.network_interface:
        environment["GLOO_SOCKET_IFNAME"] = cluster.network_interface
        environment["NCCL_SOCKET_IFNAME"] = cluster.network_interface
    return environment
