"""The function Ray Train runs on every rank.

The driver imports this module to name the function, so DeepSpeed and the loop are imported inside it: loading them
takes the driver as long as starting the cluster.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointConsistencyMode, CheckpointUploadMode

from sftkey_dist.errors import TrainingError
from sftkey_dist.training.job import StageJob


def train_worker(settings: dict[str, Any]) -> None:
    """Run one stage on this rank.

    Args:
        settings: ``job``, a StageJob as plain values, and ``num_threads``.
    """
    from sftkey_dist.training.engine import join_process_group, limit_threads
    from sftkey_dist.training.loop import train_stage

    job = StageJob.model_validate(settings["job"])
    limit_threads(settings["num_threads"])
    join_process_group()
    train_stage(job, RayCheckpoints(job.training.collective_timeout_seconds))


class RayCheckpoints:
    """Checkpoints through ``ray.train.report``: every rank hands in its folder, Ray merges them."""

    def __init__(self, timeout_seconds: int) -> None:
        self._timeout_seconds = timeout_seconds
        self._last_name = ""

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
        """Have ``write`` called, and its files uploaded, on another thread while training goes on."""
        storage = ray.train.get_context().get_storage()

        def write_and_upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
            try:
                write(Path(checkpoint.path))
                return storage.persist_current_checkpoint(checkpoint, name)
            finally:
                shutil.rmtree(checkpoint.path, ignore_errors=True)

        self._last_name = f"step_{steps_done:08d}"
        ray.train.report(
            {"steps_done": steps_done},
            checkpoint=Checkpoint.from_directory(tempfile.mkdtemp(prefix="sftkey-checkpoint-")),
            checkpoint_dir_name=self._last_name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=write_and_upload,
        )

    def wait(self) -> None:
        """Wait until Ray has committed what was saved: a report that is on its way does not count yet.

        Raises:
            TrainingError: it took longer than a rank waits for another.
        """
        committed = ray.train.get_all_reported_checkpoints(
            consistency_mode=CheckpointConsistencyMode.COMMITTED, timeout_s=self._timeout_seconds
        )
        names = {Path(reported.checkpoint.path).name for reported in committed}
        if self._last_name and self._last_name not in names:  # Ray returns what there is when time is up
            raise TrainingError(
                f"checkpoint {self._last_name} was not committed within {self._timeout_seconds} s; is the storage full "
                f"or slow? See training.collective_timeout_seconds and training.checkpoint_every_steps"
            )
