"""The function Ray Train runs on every rank."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointConsistencyMode

from sftkey_dist.training.engine import join_process_group, limit_threads
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.loop import train_stage


def train_worker(settings: dict[str, Any]) -> None:
    """Run one stage on this rank.

    Args:
        settings: ``job``, a StageJob as plain values, and ``num_threads``.
    """
    job = StageJob.model_validate(settings["job"])
    limit_threads(settings["num_threads"])
    join_process_group()
    train_stage(job, RayCheckpoints(job.training.collective_timeout_seconds))


class RayCheckpoints:
    """Checkpoints through ``ray.train.report``: every rank hands in its folder, Ray merges them."""

    def __init__(self, timeout_seconds: int) -> None:
        self._timeout_seconds = timeout_seconds

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The newest committed checkpoint, as a local folder while the block lasts."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def save(self, steps_done: int, write: Callable[[Path], None]) -> None:
        """Report what ``write`` puts in a folder, and wait until Ray has committed it.

        ``report`` returns when the files are copied, not when the checkpoint counts; a worker lost in between
        would lose the checkpoint.
        """
        with tempfile.TemporaryDirectory(prefix="sftkey-checkpoint-") as folder:
            write(Path(folder))
            ray.train.report(
                {"steps_done": steps_done},
                checkpoint=Checkpoint.from_directory(folder),
                checkpoint_dir_name=f"step_{steps_done:08d}",
            )
            ray.train.get_all_reported_checkpoints(
                consistency_mode=CheckpointConsistencyMode.COMMITTED, timeout_s=self._timeout_seconds
            )
