"""Where a rank hangs: the stacks of its threads, written shortly before the others give it up."""

import faulthandler
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

_SHARE_OF_TIMEOUT = 0.9
"""The stacks must be on disk before NCCL or a failed collective ends the process."""


class StackDump:
    """Writes the stacks of all threads to a file unless it is postponed in time.

    The standard library does so from a thread in C, which also runs while Python waits inside a library. There is one
    such timer per process.
    """

    def __init__(self, file: Path, timeout_seconds: float) -> None:
        """
        Args:
            file: text file to append to; it is removed at the end if nothing was written. On a full disk there is none.
            timeout_seconds: how long other ranks wait for this one.
        """
        self._path, self._seconds = file, _SHARE_OF_TIMEOUT * timeout_seconds
        self._file: TextIO | None = None
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("a")
        self.postpone()

    def postpone(self) -> None:
        """Begin to wait anew, because the rank has made progress."""
        if self._file is not None:
            faulthandler.dump_traceback_later(self._seconds, file=self._file)

    def close(self) -> None:
        """Stop waiting."""
        if self._file is None:
            return
        faulthandler.cancel_dump_traceback_later()
        is_empty = os.fstat(self._file.fileno()).st_size == 0
        self._file.close()
        if is_empty:
            self._path.unlink(missing_ok=True)
