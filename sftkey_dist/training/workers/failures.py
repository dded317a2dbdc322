"""Why workers ended, in one line, and whether another attempt can succeed."""

from dataclasses import dataclass

import torch
from ray.exceptions import RayError
from ray.train import TrainingFailedError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from sftkey_dist.cluster.ray_errors import in_one_line
from sftkey_dist.errors import StorageError, TrainingError, UserError
from sftkey_dist.models.accelerator import node_devices
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.diagnostics.heartbeat import who_is_missing
from sftkey_dist.training.job import StageJob

_TIMED_OUT = ("timed out", "timeout")
_SIGNS_OF_A_LOST_PEER = ("connection closed by peer", "connection reset", "broken pipe", "gloo", "nccl", *_TIMED_OUT)
_SIGNS_OF_A_SICK_DEVICE = ("cuda error", "ecc error")
_SIGNS_OF_NO_DEVICE = (
    "no gpus found",
    "no cuda gpus are available",
    "no cuda-capable device",
    "driver version is insuff",
)
_SIGNS_OF_TOO_LITTLE_MEMORY = ("cuda out of memory", "cuda error: out of memory")
_MEMORY_REMEDY = (
    "lower training.micro_batch_tokens, or set training.gradient_checkpointing=true, "
    "training.logit_chunk_positions=1024 or training.zero.offload=cpu"
)


@dataclass(frozen=True)
class Failure:
    """Why a group of workers ended.

    Attributes:
        error: what the user is told.
        is_transient: whether another attempt may succeed: a worker, node or connection was lost, and nobody erred.
    """

    error: UserError
    is_transient: bool


def read_failure(job: StageJob, num_workers: int, error: TrainingFailedError | RayError) -> Failure:
    """Find the failure that came first; a user's mistake that only a worker could find keeps its kind."""
    stage = job.stage_dir.name
    if not (isinstance(error, WorkerGroupError) and error.worker_failures):
        return Failure(TrainingError(f"stage {stage} stopped: {in_one_line(error)}"), is_transient=True)
    rank, failure = min(error.worker_failures.items(), key=lambda item: (_rank_of_cause(item[1]), item[0]))
    cause = _cause(failure)
    if isinstance(cause, UserError):
        return Failure(type(cause)(f"stage {stage}: {cause}"), is_transient=isinstance(cause, StorageError))
    lost = "its process was lost; " if _rank_of_cause(failure) == 1 else ""
    message = f"stage {stage} stopped, rank {rank}: {lost}{in_one_line(failure)}"
    if _has(cause, _SIGNS_OF_NO_DEVICE):
        return Failure(TrainingError(f"{message} ({_drivers()})"), is_transient=False)
    if _has(cause, _SIGNS_OF_TOO_LITTLE_MEMORY):
        return Failure(TrainingError(f"{message}; {_MEMORY_REMEDY}"), is_transient=False)
    # NCCL ends the ranks that wait, while the rank that they wait for lives: a lost process is not the one that hangs.
    if _has(cause, _TIMED_OUT) or lost:
        missing = who_is_missing(StageDir(job.stage_dir), num_workers, job.training.collective_timeout_seconds)
        message += f"; {missing} (training.collective_timeout_seconds={job.training.collective_timeout_seconds})"
        stacks = StageDir(job.stage_dir).stacks
        message += f"; the stacks of ranks that hung are in {stacks}" if any(stacks.glob("*.txt")) else ""
    return Failure(TrainingError(message), _rank_of_cause(failure) > 0)


def _rank_of_cause(failure: Exception) -> int:
    """Rank causes before consequences: 0 an error of the code, 1 a lost process, 2 a connection that a peer cut."""
    if _has(_cause(failure), _SIGNS_OF_A_LOST_PEER + _SIGNS_OF_A_SICK_DEVICE):
        return 2
    return 0 if isinstance(failure, UserExceptionWithTraceback) else 1


def _cause(failure: Exception) -> Exception:
    return failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure


def _has(cause: Exception, signs: tuple[str, ...]) -> bool:
    """Errors of collectives are RuntimeErrors like any other; only their text distinguishes them."""
    text = str(cause).lower()
    return not isinstance(cause, UserError) and any(sign in text for sign in signs)


def _drivers() -> str:
    """Versions of the driver and of CUDA, which must be compatible."""
    found = ", ".join(sorted({device.driver for device in node_devices()})) or "none"
    return f"NVIDIA's driver on this node: {found}; torch is built for CUDA {torch.version.cuda}"
