"""Append-only .jsonl files that outlive the process that writes them: one JSON object a line.

A line without its end was being written when its writer died; readers pass over it, and whoever goes on writing
first cuts it off.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

from sftkey_dist.errors import DataError
from sftkey_dist.files import RESTORE_OR_REMOVE, open_to_append, parse_json, to_json, write_text_atomically

Record = dict[str, Any]
Content = TypeVar("Content")

_MOST_CHARACTERS = 200


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records in one write.

    Raises:
        DataError: the journal is a link, or no regular file.
    """
    with open_to_append(path) as file:
        file.write(to_lines(records).encode())


def append_event(path: Path, event: str, message: str) -> None:
    """Note what happened, beginning a line of its own whatever the last writer left; a full disk is outlived."""
    with suppress(OSError):
        with open_to_append(path) as file:
            file.seek(0)
            file.truncate(len(b"".join(file.read().rpartition(b"\n")[:2])))
        append_records(path, [{"event": event, "message": message}])


def read_records(path: Path, remedy: str = RESTORE_OR_REMOVE) -> list[Record]:
    """All complete records; none where there is no file.

    Args:
        path: of the journal.
        remedy: what to do about a line that is no record, for the message.

    Raises:
        DataError: a line is no record, or the journal is no regular file.
    """
    return JournalTail(path, remedy).new_records()


def keep_records(path: Path, keep: Callable[[Record], bool], remedy: str = RESTORE_OR_REMOVE) -> None:
    """Replace the journal, whole, by the complete records that are to be kept.

    Raises:
        DataError: as `read_records`.
    """
    write_text_atomically(path, to_lines(record for record in read_records(path, remedy) if keep(record)))


class Tail(Generic[Content]):
    """Reads a growing journal bit by bit; starts over when the file has been replaced, as on resume."""

    def __init__(self, path: Path, parse: Callable[[str, Record], Content], remedy: str = RESTORE_OR_REMOVE) -> None:
        """
        Args:
            path: of the journal.
            parse: makes what is wanted of the place and the object of a line.
            remedy: as for `read_records`.
        """
        self._path, self._parse, self._remedy = path, parse, remedy
        self._inode = self._offset = self._num_lines = 0

    def new_records(self) -> list[Content]:
        """The complete records that have come since the last call.

        Raises:
            DataError: a line is no record, or the journal is no regular file.
        """
        if not self._path.exists():
            return []
        if not self._path.is_file():  # opening a named pipe would wait for its writer
            raise DataError(f"{self._path}: no regular file; {self._remedy}")
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset, self._num_lines = inode, 0, 0
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        # Only b"\n" ends a line: str.splitlines would also split at U+2028 and its like inside a record.
        lines = complete.split(b"\n") if newline else []
        places = (f"{self._path}:{number}" for number in count(self._num_lines + 1))
        objects = [(place, self._object(place, line)) for place, line in zip(places, lines, strict=False) if line]
        records = [self._parse(place, found) for place, found in objects]
        self._offset += len(complete + newline)
        self._num_lines += len(lines)
        return records

    def _object(self, place: str, line: bytes) -> Record:
        try:
            record = parse_json(line.decode("utf-8"))
        except ValueError as error:
            found = "NULs" if b"\0" in line else f"{error}"[:_MOST_CHARACTERS]
            raise DataError(f"{place}: the line is damaged ({found}); {self._remedy}") from None
        if not isinstance(record, dict):
            raise DataError(f"{place}: the line is no JSON object; {self._remedy}")
        return record


class JournalTail(Tail[Record]):
    """A tail of objects as they stand in the journal."""

    def __init__(self, path: Path, remedy: str = RESTORE_OR_REMOVE) -> None:
        super().__init__(path, lambda place, record: record, remedy)


def to_lines(records: Iterable[Record]) -> str:
    """Records as they stand in a journal."""
    return "".join(to_json(record) + "\n" for record in records)
