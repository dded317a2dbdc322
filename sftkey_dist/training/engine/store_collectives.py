"""Ranks wait for each other's long reads and writes here, outside of collectives, which NCCL's watchdog would end."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import distributed_c10d

from sftkey_dist.errors import StorageError, TrainingError
from sftkey_dist.training.checkpoint.storage_errors import is_transient

_MAX_CHARACTERS = 300
_NUMBERS = itertools.count()
"""Numbers the users of the store in a process: old notes must not count again in the next stage."""


class StoreCollectives:
    """Collectives through the key-value store that the process group was made with, where ranks may take minutes; every
    method is called on all ranks."""

    def __init__(self, timeout_seconds: float) -> None:
        """
        Args:
            timeout_seconds: longest wait for another rank.
        """
        self._store, self._timeout = distributed_c10d._get_default_store(), timedelta(seconds=timeout_seconds)
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()

    def after_first_rank(self) -> None:
        """Go on once rank 0 is here.

        Raises:
            StorageError: rank 0 did not come in time.
        """
        self._notes("", [0])

    def gather(self, note: str) -> list[str]:
        """Exchange notes; returns those of all ranks, in rank order, once all are here.

        Raises:
            StorageError: a rank did not come in time.
        """
        return self._notes(note, range(self._world_size))

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """Have all ranks fail where the block fails on one of them; in the block, no rank may wait for another.

        Args:
            what: the block writes, for the message.

        Raises:
            TrainingError: the block failed on a rank.
            StorageError: it failed by an error that may pass, or a rank did not come in time.
        """
        cause = None
        try:
            yield
        except Exception as error:  # of the file system, or whatever a library makes of it
            cause = error
        problem = "" if cause is None else " ".join(f"{cause or type(cause).__name__}".split())[:_MAX_CHARACTERS]
        for rank, note in enumerate(self.gather(json.dumps([problem, is_transient(cause)]))):
            found, passes = json.loads(note)
            if found:
                raise (StorageError if passes else TrainingError)(
                    f"rank {rank} could not write {what} ({found}); when that is put right, the same command goes on "
                    f"from the last checkpoint"
                ) from cause

    def _notes(self, note: str, ranks: range | list[int]) -> list[str]:
        self._number = next(_NUMBERS)
        self._store.set(self._key(self._rank), note)
        try:
            self._store.wait([self._key(rank) for rank in ranks], self._timeout)
        except dist.DistStoreError as error:
            missing = [rank for rank in ranks if not self._store.check([self._key(rank)])]
            raise StorageError(
                f"ranks {', '.join(map(str, missing))} are still reading, writing or generating after "
                f"{self._timeout.total_seconds():g} s (training.storage_timeout_seconds)"
            ) from error
        return [self._store.get(self._key(rank)).decode() for rank in ranks]

    def _key(self, rank: int) -> str:
        return f"sftkey/collectives/{self._number}/{rank}"
