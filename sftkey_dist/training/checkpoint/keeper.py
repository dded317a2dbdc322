"""Commits checkpoints, finds the newest intact one, and keeps two."""

import errno
import importlib.metadata
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.digests import FileNote
from sftkey_dist.errors import CheckpointError, StorageError, TrainingError
from sftkey_dist.release import version
from sftkey_dist.training.checkpoint.manifest import Manifest, parse_manifest
from sftkey_dist.training.checkpoint.shards import Snapshot, shard_name
from sftkey_dist.training.checkpoint.storage import Storage, open_storage
from sftkey_dist.training.checkpoint.storage_errors import is_transient
from sftkey_dist.training.job import StageJob

CHECKPOINTS_KEPT = 2
"""A stage resumes from one of so many; what they refer to must be kept as long."""

_MANIFEST = "manifest.json"
_DAMAGED = "damaged.txt"
"""Written beside the files of a damaged checkpoint, which is kept for a person to look at."""
_POLL_SECONDS = 0.1
_SECONDS_BETWEEN_LATER_LOOKS = 2.0
"""Hundreds of ranks share an object store: rank 0 lists it often only while most shards are about to arrive."""
_LIBRARIES = ("torch", "deepspeed", "safetensors")


class CheckpointKeeper:
    """One rank's side of a stage's checkpoints.

    Attributes:
        storage: where the checkpoints of this stage, and of no other, lie.
        rank: of this process.
    """

    def __init__(
        self, storage: Storage, stage: str, *, rank: int, world_size: int, timeout_seconds: float, attempt: str
    ) -> None:
        """
        Args:
            storage: of this stage alone.
            stage: name of the stage's folder.
            rank: of this process.
            world_size: number of ranks.
            timeout_seconds: how long rank 0 waits for the others' shards.
            attempt: the same on all ranks, and on no other group of workers: one that was cut off, and still
                writes, writes to folders of its own.
        """
        self.storage, self.rank = storage, rank
        self._stage, self._world_size = stage, world_size
        self._timeout_seconds, self._attempt = timeout_seconds, attempt
        self._writer: threading.Thread | None = None
        self._failure: Exception | None = None
        self._written_candidate: int | None = None
        self._candidates: dict[str, int | None] = {}

    @classmethod
    def of_stage(cls, job: StageJob, *, rank: int, world_size: int, attempt: str) -> Self:
        """A rank's side of the checkpoints of a stage's job."""
        return cls(
            open_storage(job.checkpoints),
            job.stage_dir.name,
            rank=rank,
            world_size=world_size,
            timeout_seconds=job.training.storage_timeout_seconds,
            attempt=attempt,
        )

    def remove_torn(self) -> None:
        """Remove what earlier attempts did not finish; on rank 0, before any rank saves."""
        for folder in self.storage.folders():
            if _MANIFEST not in self.storage.files(folder):
                self.storage.remove(folder, _MANIFEST)

    def newest_first(self) -> list[str]:
        """Folders of the checkpoints that are not known to be damaged."""
        return committed(self.storage)

    def read_manifest(self, folder: str) -> Manifest:
        """
        Raises:
            CheckpointError: it is damaged, gone, or of another stage.
            OSError: the storage does not answer, which says nothing about the checkpoint.
        """
        with _gone_is_damaged("the manifest"), self.storage.reading(folder, _MANIFEST) as file:
            return parse_manifest(file.read_bytes(), self._stage)

    def verify(self, folder: str, manifest: Manifest) -> None:
        """Check this rank's part of the shards; all ranks together check each once.

        Raises:
            CheckpointError: a file is missing, or differs from what was written.
            OSError: the storage does not answer, which says nothing about the checkpoint.
        """
        for rank in range(self.rank, manifest.world_size, self._world_size):
            with _gone_is_damaged(shard_name(rank)), self.storage.reading(folder, shard_name(rank)) as file:
                found = FileNote.of(file)
            if found != manifest.shards[rank]:
                raise CheckpointError(
                    f"{shard_name(rank)} differs from what was written ({found.bytes} of {manifest.shards[rank].bytes} "
                    f"bytes, another digest)"
                )

    def set_aside(self, folder: str, reason: str) -> None:
        """Never read a checkpoint again; on rank 0."""
        with self.storage.writing(folder, _DAMAGED) as file:
            file.write_text(reason + "\n", encoding="utf-8")

    def save(self, snapshot: Snapshot) -> None:
        """Write this rank's shard on another thread; rank 0's thread then commits.

        Call `wait` before the snapshot is taken, so that memory holds only one.
        """
        self.wait()
        self._written_candidate = snapshot.candidate
        self._writer = threading.Thread(target=self._keep_failure, args=(snapshot,), name="checkpoint", daemon=True)
        self._writer.start()

    def candidates(self) -> frozenset[int] | None:
        """The guard's models that a checkpoint refers to, the one that is being written included; on rank 0.

        Returns:
            Steps done when each was taken; None where a checkpoint does not say, or the storage does not answer.
        """
        found = set() if self._written_candidate is None else {self._written_candidate}
        try:
            for folder in self.newest_first():
                with suppress(CheckpointError):  # nobody goes on from it
                    candidate = self._candidate_of(folder)
                    if candidate is None:
                        return None
                    found.add(candidate)
        except (OSError, StorageError):
            return None
        return frozenset(found)

    def _candidate_of(self, folder: str) -> int | None:
        """Manifests never change, and each is read once."""
        if folder not in self._candidates:
            self._candidates[folder] = self.read_manifest(folder).candidate
        return self._candidates[folder]

    def wait(self) -> None:
        """Return when what this rank saved is on storage, and on rank 0 committed.

        Raises:
            TrainingError: it could not be written, or other ranks have not written theirs in time.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _keep_failure(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except TrainingError as error:
            self._failure = error
        except Exception as error:  # pyarrow's and safetensors' own errors are no OSErrors
            self._failure = (StorageError if is_transient(error) else TrainingError)(
                f"the checkpoint after {snapshot.steps_done} steps could not be written to {self.storage.place}: "
                f"{in_a_line(error)}; the one before is kept"
            )

    def _write(self, snapshot: Snapshot) -> None:
        folder = f"step_{snapshot.steps_done:08d}-{self._attempt}"
        free = self.storage.free_bytes()
        if free is not None and free < snapshot.num_bytes:
            raise OSError(f"{free / 2**20:.0f} MiB are free, {snapshot.num_bytes / 2**20:.0f} MiB are needed")
        with self.storage.writing(folder, shard_name(self.rank)) as file:
            snapshot.write(file)
            note = FileNote.of(file)  # of what was written, not of what should have been
        with self.storage.writing(folder, _note_name(self.rank)) as file:
            file.write_text(note.model_dump_json(), encoding="utf-8")
        if self.rank == 0:
            self._commit(folder, snapshot)
            self._prune()

    def _commit(self, folder: str, snapshot: Snapshot) -> None:
        ranks = range(self._world_size)
        started = time.monotonic()
        deadline = started + self._timeout_seconds
        while missing := self._missing(folder):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the checkpoint after {snapshot.steps_done} steps lacks the shards of ranks "
                    f"{', '.join(map(str, missing))} after {self._timeout_seconds:g} s; is {self.storage.place} the "
                    f"same storage on all nodes? See training.storage_timeout_seconds"
                )
            is_early = time.monotonic() - started < _SECONDS_BETWEEN_LATER_LOOKS
            time.sleep(_POLL_SECONDS if is_early else _SECONDS_BETWEEN_LATER_LOOKS)
        manifest = Manifest(
            stage=self._stage,
            steps_done=snapshot.steps_done,
            world_size=self._world_size,
            members_digest=snapshot.members_digest,
            numel=snapshot.numel,
            candidate=snapshot.candidate,
            shards=tuple(self._read_note(folder, rank) for rank in ranks),
            versions={"sftkey_dist": version()} | {name: importlib.metadata.version(name) for name in _LIBRARIES},
        )
        with self.storage.writing(folder, _MANIFEST) as file:
            file.write_text(manifest.model_dump_json(), encoding="utf-8")

    def _missing(self, folder: str) -> list[int]:
        """Ranks whose shard is not there yet; the folder is listed once."""
        files = self.storage.files(folder)
        return [rank for rank in range(self._world_size) if _note_name(rank) not in files]

    def _read_note(self, folder: str, rank: int) -> FileNote:
        with self.storage.reading(folder, _note_name(rank)) as file:
            return FileNote.model_validate_json(file.read_bytes())

    def _prune(self) -> None:
        """The newer ones are committed by then."""
        for folder in committed(self.storage)[CHECKPOINTS_KEPT:]:
            self.storage.remove(folder, _MANIFEST)


def committed(storage: Storage) -> list[str]:
    """Folders of the checkpoints that are not known to be damaged, newest first."""
    found = []
    for folder in storage.folders():
        files = storage.files(folder)
        if folder.startswith("step_") and _MANIFEST in files and _DAMAGED not in files:
            found.append(folder)
    return sorted(found, reverse=True)


def newest_step(storage: Storage) -> int:
    """Steps done in the newest checkpoint; 0 without one."""
    return next((int(folder[len("step_") :].split("-")[0]) for folder in committed(storage)), 0)


def remove_checkpoints(storage: Storage) -> None:
    """Remove all, the damaged too: their stage is finished."""
    for folder in storage.folders():
        storage.remove(folder, _MANIFEST)


def new_attempt() -> str:
    """A name for a group of workers."""
    return secrets.token_hex(4)


@contextmanager
def _gone_is_damaged(what: str) -> Iterator[None]:
    """A file that is not there, or that the disk cannot give back, is lost; any other error may pass."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.EIO:
            raise CheckpointError(f"{what} cannot be read ({error})") from error
        raise


def _note_name(rank: int) -> str:
    return f"rank_{rank:05d}.json"
