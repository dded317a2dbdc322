"""Append-only .jsonl files with one JSON object per line, which survive the death of their writer.

A last line without a line break was incomplete when its writer died. Readers ignore it, and the next writer removes it.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

from sftkey_dist.errors import DataError
from sftkey_dist.files import open_to_append, to_json, write_errors_named, write_text_atomically
from sftkey_dist.reading import RESTORE_OR_REMOVE, parse_json

Record = dict[str, Any]
Content = TypeVar("Content")

_MAX_CHARACTERS = 200


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records in one write.

    Raises:
        DataError: the journal is a link, or not a regular file.
    """
    with write_errors_named(path), open_to_append(path) as file:
        file.write(to_lines(records).encode())


def append_event(path: Path, event: str, message: str) -> None:
    """Append an event, after removing an incomplete last line. Errors such as a full disk are ignored."""
    with suppress(OSError):
        with open_to_append(path) as file:
            file.seek(0)
            file.truncate(len(b"".join(file.read().rpartition(b"\n")[:2])))
        append_records(path, [{"event": event, "message": message}])


def read_records(path: Path, remedy: str = RESTORE_OR_REMOVE) -> list[Record]:
    """All complete records; none if there is no file.

    Args:
        path: path of the journal.
        remedy: what to do about a damaged line, for the error message.

    Raises:
        DataError: a line is damaged, or the journal is not a regular file.
    """
    return JournalTail(path, remedy).new_records()


def keep_records(path: Path, keep: Callable[[Record], bool], remedy: str = RESTORE_OR_REMOVE) -> None:
    """Replace the journal atomically, keeping only the complete records for which ``keep`` is true.

    Raises:
        DataError: see `read_records`.
    """
    write_text_atomically(path, to_lines(record for record in read_records(path, remedy) if keep(record)))


class Tail(Generic[Content]):
    """Reads a growing journal incrementally. It starts over when the file has been replaced, as on resume."""

    def __init__(self, path: Path, parse: Callable[[str, Record], Content], remedy: str = RESTORE_OR_REMOVE) -> None:
        """
        Args:
            path: path of the journal.
            parse: converts the location and the JSON object of a line.
            remedy: see `read_records`.
        """
        self._path, self._parse, self._remedy = path, parse, remedy
        self._inode = self._offset = self._num_lines = 0

    def new_records(self) -> list[Content]:
        """The complete records that were added since the last call.

        Raises:
            DataError: a line is damaged, or the journal is not a regular file.
        """
        if not self._path.exists():
            return []
        if not self._path.is_file():  # opening a named pipe would block
            raise DataError(f"{self._path}: not a regular file; {self._remedy}")
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset, self._num_lines = inode, 0, 0
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        # Only b"\n" ends a line. str.splitlines would also split at U+2028 and similar characters inside a record.
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
            found = "NULs" if b"\0" in line else f"{error}"[:_MAX_CHARACTERS]
            raise DataError(f"{place}: the line is damaged ({found}); {self._remedy}") from None
        if not isinstance(record, dict):
            raise DataError(f"{place}: the line is not a JSON object; {self._remedy}")
        return record


class JournalTail(Tail[Record]):
    """A tail that returns the JSON objects unchanged."""

    def __init__(self, path: Path, remedy: str = RESTORE_OR_REMOVE) -> None:
        super().__init__(path, lambda place, record: record, remedy)


def to_lines(records: Iterable[Record]) -> str:
    """The lines of a journal that contain the records."""
    return "".join(to_json(record) + "\n" for record in records)
