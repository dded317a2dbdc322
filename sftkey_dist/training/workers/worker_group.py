"""A group of Ray Train workers that trains one stage after another.

Starting workers takes longer than many stages: processes, imports, rendezvous. So a group that is well is kept.
"""

import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sftkey_dist.cluster.connection import in_use_in_words, lies_on_loopback
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.interrupts import interruptible
from sftkey_dist.training.allocator import CPU_ALLOCATOR
from sftkey_dist.training.checkpoint import new_attempt
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.workers.ray_trainer import ProcessGroupConfig, StartLimit, Trainer, TrainerOfOwnCluster
from sftkey_dist.training.workers.task_queue import TaskQueue
from sftkey_dist.training.workers.worker import Queue, train_worker

SECONDS_TO_LEAVE = 60.0
_SECONDS_TO_FAIL = 5.0
_SECONDS_TO_PLACE = 10.0
_LOOPBACK_INTERFACE = "lo"


class WorkerGroup:
    """Workers that train the stages they are given, one at a time, until they are dismissed or lost.

    Attributes:
        num_workers: number of ranks.
    """

    def __init__(self, cluster: ClusterConfig, num_workers: int, timeout_seconds: int, scratch: Path) -> None:
        """Start the workers; it takes a while until the first stage begins.

        Args:
            cluster: what a worker needs.
            num_workers: number of ranks.
            timeout_seconds: longest wait of a rank for another.
            scratch: folder for what Ray Train insists on writing; nothing is read from it.
        """
        self.num_workers, self._cluster = num_workers, cluster
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Every rank may wait for the next stage at the same time.
        options = {"num_cpus": 0, "scheduling_strategy": here, "max_concurrency": 2 * num_workers + 8}
        self._queue = ray.remote(TaskQueue).options(**options).remote(num_workers)
        self._trainer = _trainer(cluster, num_workers, timeout_seconds, scratch, self._queue)
        self._started, self._start_timeout_seconds = time.monotonic(), cluster.start_timeout_seconds
        self._error: BaseException | None = None
        self._outcome: Any = None
        self._fit = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self._fit.start()

    @property
    def is_there(self) -> bool:
        """Whether workers are running or starting."""
        return self._fit.is_alive()

    @property
    def has_started(self) -> bool:
        """Whether the workers have met."""
        return bool(self.nodes)

    @property
    def nodes(self) -> frozenset[str]:
        """Ids of the nodes of the workers that have started."""
        return frozenset(interruptible(ray.get, self._queue.nodes.remote()))

    def reason_to_wait(self) -> str:
        """What the workers wait for that other work has reserved; "" if they have started, or may do so any moment."""
        if time.monotonic() - self._started < _SECONDS_TO_PLACE or self.has_started:
            return ""
        return in_use_in_words(self._cluster, self.num_workers)

    def begin(self, job: StageJob) -> None:
        """Give the workers the next stage."""
        self._outcome = self._queue.assign.remote(job.model_dump(mode="json"), new_attempt())

    def wait(self, seconds: float) -> bool | None:
        """Wait for the stage.

        Args:
            seconds: most time to wait.

        Returns:
            Whether it is finished: False when the workers stopped before its end because they were asked to; None
            while they are at work.

        Raises:
            TrainingFailedError: workers failed or were lost.
            RayError: the cluster failed.
        """
        done, _ = interruptible(ray.wait, [self._outcome], timeout=seconds)
        if done:
            return bool(interruptible(ray.get, self._outcome))
        if self._fit.is_alive():
            return None
        if time.monotonic() - self._started > self._start_timeout_seconds and not self.has_started:
            raise TrainingFailedError(
                f"the workers did not start within {self._start_timeout_seconds:.0f} s (cluster.start_timeout_seconds)"
            )
        raise self._error or TrainingFailedError("the workers ended without an error")

    def dismiss(self, most_seconds: float) -> None:
        """End the workers that are left; those that have not started end with the driver.

        Args:
            most_seconds: longest wait for workers to leave; afterwards each fails when it asks for the next stage.
        """
        if self._fit.is_alive():
            self._queue.assign.remote(None, "")
            if self._may_leave():
                self._fit.join(most_seconds)
            elif self._trainer.abandon():
                self._fit.join(_SECONDS_TO_FAIL)
        ray.kill(self._queue)

    def _may_leave(self) -> bool:
        """Whether the workers will end soon: they have met, or have lost their queue, without which they fail."""
        try:
            return self.has_started
        except RayError:
            return True

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except (TrainingFailedError, RayError) as error:
            self._error = error


def _trainer(cluster: ClusterConfig, num_workers: int, timeout_seconds: int, scratch: Path, queue: Queue) -> Trainer:
    on_gpu, on_loopback = cluster.gpus_per_worker > 0, lies_on_loopback()
    trainer = TrainerOfOwnCluster if on_loopback else Trainer
    return trainer(
        train_worker,
        train_loop_config={"queue": queue, "num_threads": cluster.cpus_per_worker},
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if on_gpu else {}),
        ),
        backend_config=ProcessGroupConfig("nccl" if on_gpu else "gloo", timeout_seconds, on_loopback),
        run_config=RunConfig(
            name=new_attempt(),
            storage_path=str(scratch),
            callbacks=[StartLimit(cluster.start_timeout_seconds)],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3, max_preemption_failures=0),
            worker_runtime_env={
                "env_vars": get_env_vars_to_propagate() | _worker_environment(cluster, on_loopback=on_loopback)
            },
        ),
    )


def _worker_environment(cluster: ClusterConfig, *, on_loopback: bool) -> dict[str, str]:
    environment = {
        # 1, which Ray sets, aborts the communicator before it reports a timeout, and the abort itself can hang.
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "NCCL_DEBUG": "WARN",
        # Rows have every length: without it, freed blocks of one length fit no other.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "DS_ACCELERATOR": "cuda" if cluster.gpus_per_worker else "cpu",
        "OMP_NUM_THREADS": str(cluster.cpus_per_worker),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if not cluster.gpus_per_worker:
        environment |= CPU_ALLOCATOR | {"CUDA_VISIBLE_DEVICES": ""}  # Ray leaves a node's accelerators visible
    network = cluster.network_environment(_LOOPBACK_INTERFACE if on_loopback else None)
    return environment | network | cluster.environment
