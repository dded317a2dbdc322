"""Run a stage on a cluster through Ray Train's TorchTrainer."""

import os
import signal

from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from sftkey_dist.config.schema import ClusterConfig
from sftkey_dist.errors import InterruptedRunError, TrainingError, UserError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.job import CHECKPOINTS_KEPT, StageJob
from sftkey_dist.training.worker import train_worker

_DRIVER_ENVIRONMENT = {
    # A report commits when the controller polls next: 2 s by default, which each checkpoint would wait for.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
CPU_ALLOCATOR = {
    # Activations come and go every micro-batch. By default glibc hands large ones back to the kernel each time, and
    # the page faults of getting them again cost a tenth to a fifth of a step; huge pages save the rest of them.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {"hugetlb": 1, "trim_threshold": 2**34, "mmap_threshold": 2**30}.items()
    )
}


def run_stage(job: StageJob, cluster: ClusterConfig) -> None:
    """Train a stage; a rerun with the same stage folder goes on from the last committed checkpoint.

    Raises:
        TrainingError: a worker failed more often than ``training.max_failures`` allows.
        UserError: a mistake that only the workers could find, such as a folder whose weights are incomplete.
        InterruptedRunError: the run was interrupted.
    """
    for name, value in _DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", str(job.training.collective_timeout_seconds))
    interrupt_handler = signal.getsignal(signal.SIGINT)
    try:
        _trainer(job, cluster).fit()
    except SystemExit as error:  # how Ray ends a run after SIGINT
        raise InterruptedRunError from error
    except (TrainingFailedError, RayError) as error:
        raise _explain(job, error) from error
    finally:
        signal.signal(signal.SIGINT, interrupt_handler)  # Ray leaves its own behind


def _trainer(job: StageJob, cluster: ClusterConfig) -> TorchTrainer:
    on_gpu = cluster.gpus_per_worker > 0
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job.model_dump(mode="json"), "num_threads": cluster.cpus_per_worker},
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if on_gpu else {}),
        ),
        torch_config=TorchConfig(
            backend="nccl" if on_gpu else "gloo", timeout_s=job.training.collective_timeout_seconds
        ),
        run_config=RunConfig(
            name=StageDir(job.stage_dir).ray_storage,
            storage_path=str(job.stage_dir),
            failure_config=FailureConfig(max_failures=job.training.max_failures, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
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


def _explain(job: StageJob, error: Exception) -> UserError:
    """One line for what went wrong first; a user's mistake that only a worker could find stays one."""
    if not (isinstance(error, WorkerGroupError) and error.worker_failures):
        return TrainingError(f"stage {job.stage_dir.name} stopped: {_last_line(error)}")
    rank, failure = min(error.worker_failures.items(), key=lambda item: (_is_consequence(item[1]), item[0]))
    cause = failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure
    if isinstance(cause, UserError):
        return type(cause)(f"stage {job.stage_dir.name}: {cause}")
    return TrainingError(f"stage {job.stage_dir.name} stopped, rank {rank}: {_last_line(failure)}")


def _is_consequence(failure: Exception) -> bool:
    """Whether a rank failed because another one had gone."""
    return any(sign in str(failure) for sign in ("Connection closed by peer", "Connection reset", "timed out"))


def _last_line(error: Exception) -> str:
    """A remote error's text ends with the error itself, after its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
