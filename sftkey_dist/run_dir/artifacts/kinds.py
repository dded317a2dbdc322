"""How the files of a run are read into records and written from them.

A record is a frozen dataclass; its fields are the keys of a JSON object, in their order. What a reader finds missing or
of another type is named with its file, line and key.
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
from sftkey_dist.files import RESTORE_OR_REMOVE, problem_of, read_json, write_json_atomically, write_text_atomically
from sftkey_dist.run_dir.journal import Record, Tail, append_records, to_lines

FORMAT_VERSION = 1
"""Of everything in a run directory. An object without `format_version` is of version 1; a higher one is refused."""

Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number; nan where it is not known, which is null in files."""

_ABSENT_WITH = "absent_with"
_PLAIN = frozenset({str, int, float, bool})

Content = TypeVar("Content")


def absent_with(name: str) -> dict[str, str]:
    """Metadata of a dataclass's field that stands in no file while the field ``name`` of the same record is None."""
    return {_ABSENT_WITH: name}


def to_plain(content: Any) -> Any:
    """Records, however they are nested, as values that JSON knows."""
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
    """The fields of a kind of record, each with the field whose None leaves it out."""
    return tuple((field.name, field.metadata.get(_ABSENT_WITH)) for field in fields(record))


class FileKind(Generic[Content]):
    """What a file of one kind must hold."""

    def __init__(self, content: type[Content], remedy: str = RESTORE_OR_REMOVE) -> None:
        """
        Args:
            content: a dataclass, or a mapping of them.
            remedy: what to do about a file that holds something else, for the message.
        """
        self._content = content
        self.remedy = remedy

    def of(self, place: str, plain: Record) -> Content:
        """The record of an object that was read at a place.

        Raises:
            DataError: it lacks a key, a value is of another type, or a newer version has written it.
        """
        version = plain.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataError(
                f"{place}: a newer sftkey_dist has written it (format_version {version}; this one reads "
                f"{FORMAT_VERSION}); install that version"
            )
        try:
            return self._adapter.validate_python(plain)
        except ValidationError as error:
            raise DataError(f"{place}: {problem_of(error)}; {self.remedy}") from None

    @cached_property
    def _adapter(self) -> TypeAdapter[Content]:
        """Made when it is first needed: a process reads few kinds of files."""
        return TypeAdapter(self._content)


class JsonFile(FileKind[Content]):
    """A kind of file that holds one JSON object."""

    def read(self, path: Path) -> Content:
        """The record in a file.

        Raises:
            DataError: the file is missing or damaged, or holds something else.
        """
        return self.of(str(path), read_json(path, self.remedy))

    def write(self, path: Path, content: Content) -> None:
        """Replace the file by one that holds the record."""
        write_json_atomically(path, to_plain(content))


class Journal(FileKind[Content]):
    """A kind of file that holds one JSON object a line."""

    def read(self, path: Path) -> list[Content]:
        """All complete records; none where there is no file.

        Raises:
            DataError: a line is damaged or holds something else, or the journal is no regular file.
        """
        return self.tail(path).new_records()

    def tail(self, path: Path) -> Tail[Content]:
        """What reads the file bit by bit while it grows."""
        return Tail(path, self.of, self.remedy)

    def append(self, path: Path, records: Iterable[Content]) -> None:
        """Add records in one write.

        Raises:
            DataError: the journal is a link, or no regular file.
        """
        append_records(path, map(to_plain, records))

    def write(self, path: Path, records: Iterable[Content]) -> None:
        """Replace the file by one that holds the records."""
        write_text_atomically(path, to_lines(map(to_plain, records)))

    def keep(self, path: Path, keep: Callable[[Content], bool] = lambda record: True) -> None:
        """Replace the file, whole, by its complete records that are to be kept, each as it stands there.

        Raises:
            DataError: as `read`.
        """
        lines = Tail(path, lambda place, plain: (plain, self.of(place, plain)), self.remedy).new_records()
        write_text_atomically(path, to_lines(plain for plain, record in lines if keep(record)))
