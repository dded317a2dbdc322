"""Append-only .jsonl files that outlive the process that writes them: one JSON object a line.

A line without its end was being written when its writer died; readers pass over it, and whoever goes on writing
first cuts it off.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sftkey_dist.files import to_json, write_text_atomically

Record = dict[str, Any]


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records in one write."""
    with path.open("a", encoding="utf-8") as file:
        file.write(to_lines(records))


def append_event(path: Path, event: str, message: str) -> None:
    """Note what happened, beginning a line of its own whatever the last writer left; a full disk is outlived."""
    with suppress(OSError):
        with path.open("a+b") as file:
            file.seek(0)
            file.truncate(len(b"".join(file.read().rpartition(b"\n")[:2])))
        append_records(path, [{"event": event, "message": message}])


def read_records(path: Path) -> list[Record]:
    """All complete records; none where there is no file."""
    return JournalTail(path).new_records()


def keep_records(path: Path, keep: Callable[[Record], bool]) -> None:
    """Replace the journal, whole, by the complete records that are to be kept."""
    write_text_atomically(path, to_lines(record for record in read_records(path) if keep(record)))


class JournalTail:
    """Reads a growing journal bit by bit; starts over when the file has been replaced, as on resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def new_records(self) -> list[Record]:
        """The complete records that have come since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(complete + newline)
        # Only b"\n" ends a line: str.splitlines would also split at U+2028 and its like inside a record.
        return [json.loads(line) for line in complete.split(b"\n") if line]


def to_lines(records: Iterable[Record]) -> str:
    """Records as they stand in a journal."""
    return "".join(to_json(record) + "\n" for record in records)
