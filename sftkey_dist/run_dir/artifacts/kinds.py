"""Reading and writing the files of a run as records.

A record is a frozen dataclass whose fields are the keys of a JSON object, in the same order. Errors about missing keys
and wrong types name the file, the line and the key.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from sftkey_dist.errors import DataError
from sftkey_dist.files import write_json_atomically, write_text_atomically
from sftkey_dist.reading import RESTORE_OR_REMOVE, problem_of, read_json
from sftkey_dist.run_dir.journal import Record, Tail, append_records, to_lines

FORMAT_VERSION = 1
"""Format version of all files in a run directory. An object without `format_version` has version 1, and files of a
newer version are refused."""

Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number, or nan if it is unknown, which is written as null."""

_ABSENT_WITH = "absent_with"
_PLAIN = frozenset({str, int, float, bool})

Content = TypeVar("Content")


def absent_with(name: str) -> dict[str, str]:
    """Metadata of a field that is not written while the field ``name`` of the same record is None."""
    return {_ABSENT_WITH: name}


def to_plain(content: Any) -> Any:
    """Convert nested records to plain JSON values."""
    if content is None or type(content) in _PLAIN:
        return content
    if isinstance(content, BaseModel):
        return content.model_dump()
    if isinstance(content, Enum):
        return content.value
    if is_dataclass(content) and not isinstance(content, type):
        return {
            name: to_plain(getattr(content, name))
            for name, other in _keys_of(type(content))
            if other is None or getattr(content, other) is not None
        }
    if isinstance(content, Mapping):
        return {name: to_plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [to_plain(value) for value in content]
    return content


@lru_cache(maxsize=256)
def _keys_of(record: type) -> tuple[tuple[str, str | None], ...]:
    """The fields of a record type, each with the field that, if None, leaves it out."""
    return tuple((field.name, field.metadata.get(_ABSENT_WITH)) for field in fields(record))


class FileKind(Generic[Content]):
    """A kind of file, defined by the type of its content."""

    def __init__(self, content: type[Content], remedy: str = RESTORE_OR_REMOVE) -> None:
        """
        Args:
            content: a dataclass, or a mapping to dataclasses.
            remedy: what to do about a file with other content, for the error message.
        """
        self._content = content
        self.remedy = remedy

    def of(self, place: str, plain: Record) -> Content:
        """The record of a JSON object that was read at ``place``.

        Raises:
            DataError: a key is missing, a value has the wrong type, or a newer version wrote the object.
        """
        version = plain.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataError(
                f"{place}: it was written by a newer sftkey_dist (format_version {version}; this version reads "
                f"{FORMAT_VERSION}); install that version"
            )
        try:
            return self._adapter.validate_python(plain)
        except ValidationError as error:
            raise DataError(f"{place}: {problem_of(error)}; {self.remedy}") from None

    @cached_property
    def _adapter(self) -> TypeAdapter[Content]:
        """Built on first use, because a process reads only a few kinds of files."""
        return TypeAdapter(self._content)


class JsonFile(FileKind[Content]):
    """A kind of file that contains one JSON object."""

    def read(self, path: Path) -> Content:
        """The record in a file.

        Raises:
            DataError: the file is missing, damaged, or has other content.
        """
        return self.of(str(path), read_json(path, self.remedy))

    def write(self, path: Path, content: Content) -> None:
        """Replace the file atomically by one with this record."""
        write_json_atomically(path, to_plain(content))


class Journal(FileKind[Content]):
    """A kind of file that contains one JSON object per line."""

    def read(self, path: Path) -> list[Content]:
        """All complete records; none if there is no file.

        Raises:
            DataError: a line is damaged or has other content, or the journal is not a regular file.
        """
        return self.tail(path).new_records()

    def tail(self, path: Path) -> Tail[Content]:
        """An incremental reader of the file while it grows."""
        return Tail(path, self.of, self.remedy)

    def append(self, path: Path, records: Iterable[Content]) -> None:
        """Add records in one write.

        Raises:
            DataError: the journal is a link, or not a regular file.
        """
        append_records(path, map(to_plain, records))

    def write(self, path: Path, records: Iterable[Content]) -> None:
        """Replace the file atomically by one with these records."""
        write_text_atomically(path, to_lines(map(to_plain, records)))

    def keep(self, path: Path, keep: Callable[[Content], bool] = lambda record: True) -> None:
        """Replace the file atomically, keeping the complete records for which ``keep`` is true, unchanged.

        Raises:
            DataError: see `read`.
        """
        lines = Tail(path, lambda place, plain: (plain, self.of(place, plain)), self.remedy).new_records()
        write_text_atomically(path, to_lines(plain for plain, record in lines if keep(record)))
