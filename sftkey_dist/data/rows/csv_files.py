"""Rows of .csv and .tsv files: one header, and cells separated by commas, semicolons or tabs.

Spreadsheets write semicolons where the comma is the decimal mark. The header decides: cells are separated by commas,
unless that makes it one column and another separator makes it several. A line `sep=;` before the header, which Excel
reads and writes, names the separator itself.
"""

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO

from sftkey_dist.data.adapters.content import Row
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.rows.opening import BOM, MAX_ROW_BYTES, open_bytes
from sftkey_dist.data.rows.shard import RawRows, Shard
from sftkey_dist.errors import DataError

_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(rb"(?:" + BOM + rb')?"?sep=([^"\r\n])"?\r?\n')
_MAX_BYTES_OF_SEPARATOR_LINE = 16


def csv_records(path: str) -> Iterator[tuple[int, int, int]]:
    """Line number, start and end of every record of a CSV file after the header; a record may span several lines."""
    with open_bytes(path) as file:
        lines = _CountedLines(file)
        reader = _reader_from_header(lines, path, _read_header(path)[1])
        next(reader, None)
        while True:
            line, begin = lines.number + 1, lines.offset
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{path}:{line}: not a CSV record: {error}; is a quotation mark left open?") from error
            if record is None:
                return
            if record:
                yield line, begin, lines.offset


def read_csv_shard(shard: Shard) -> RawRows:
    """The rows of a shard of a .csv file."""
    names, separator = _read_header(shard.path)
    with open_bytes(shard.path) as file:
        file.seek(shard.start)
        lines = _CountedLines(file, shard.first_line - 1, shard.stop)
        reader = _csv_reader(lines, separator)
        while True:
            place = f"{shard.path}:{lines.number + 1}"
            record = next(reader, None)
            if record is None:
                return
            if record:
                yield place, _csv_row(place, names, record)


def _csv_row(place: str, names: list[str], record: list[str]) -> Row | Refusal:
    if len(record) != len(names):
        found, few = len(record), len(record) < len(names)
        remedy = "add the cells that are missing" if few else "quote cells that contain a separator"
        detail = f"{found} column{'s'[: found != 1]}, the header names {len(names)}; {remedy}"
        return Refusal(place, "wrong_columns", detail)
    try:
        return dict(zip(names, (cell.encode("latin-1").decode("utf-8") for cell in record), strict=True))
    except UnicodeDecodeError as error:
        return Refusal(place, "not_utf8", f"not UTF-8 text (byte {error.start} of a cell); convert the file to UTF-8")


class _CountedLines:
    """Yields the lines of a binary file as text that preserves every byte, and tracks the current position."""

    def __init__(self, file: BinaryIO, number: int = 0, stop: int | None = None) -> None:
        self._file = file
        self._stop = stop
        self.number = number
        self.offset = file.tell()

    def __iter__(self) -> "_CountedLines":
        return self

    def __next__(self) -> str:
        line = b"" if self.offset == self._stop else self._file.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_ROW_BYTES:
            raise csv.Error(f"a line of more than {MAX_ROW_BYTES >> 20} MiB")
        if self.offset == 0:
            self.offset += len(BOM) if line.startswith(BOM) else 0
            line = line.removeprefix(BOM)
        self.number += 1
        self.offset += len(line)
        return line.decode("latin-1")


def _csv_reader(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    return csv.reader(lines, strict=True, delimiter=separator)


def _reader_from_header(lines: Iterator[str], path: str, separator: str) -> Iterator[list[str]]:
    """A reader of all lines of a file, without the one that names the separator."""
    if _named_separator(path):
        next(lines)
    return _csv_reader(lines, separator)


def _named_separator(path: str) -> str | None:
    """The separator that the first line names, if it is a line such as `sep=;`."""
    with open_bytes(path) as file:
        found = _SEPARATOR_LINE.fullmatch(file.readline(_MAX_BYTES_OF_SEPARATOR_LINE))
    return found[1].decode("latin-1") if found else None


def _read_header(path: str) -> tuple[list[str], str]:
    """The names of the columns, and what separates cells.

    Raises:
        DataError: The first line is not a header.
    """
    headers: dict[str, list[str]] = {}
    problem: csv.Error | None = None
    named = _named_separator(path)
    for separator in (named,) if named else _SEPARATORS:
        try:
            headers[separator] = _header(path, separator)
        except csv.Error as error:  # quotation marks show that cells are separated by something else
            problem = problem or error
    if not headers:
        raise DataError(f"{path}:{1 + bool(named)}: not a CSV header: {problem}; is a quotation mark left open?")
    separator = max(headers, key=lambda each: len(headers[each]) > 1)  # the first of several columns
    names = headers[separator]
    if not names:
        raise DataError(f"{path}: the file is empty; its first line must name the columns")
    if len(set(names)) < len(names):
        raise DataError(f"{path}:{1 + bool(named)}: the first line must name each column once, found {names}")
    return names, separator


def _header(path: str, separator: str) -> list[str]:
    with open_bytes(path) as file:
        cells = next(_reader_from_header(_CountedLines(file), path, separator), [])
    return [name.encode("latin-1").decode("utf-8", "replace") for name in cells]
