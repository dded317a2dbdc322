"""Rows of .jsonl files, one object per line, and of .json files, which contain a list of objects."""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

from sftkey_dist.data.adapters.content import Row
from sftkey_dist.data.adapters.values import WrittenFloat
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.rows.opening import BOM, MAX_ROW_BYTES, open_bytes
from sftkey_dist.data.rows.shard import RawRows, Shard
from sftkey_dist.errors import DataError

_MAX_LINE_BYTES, _MAX_FILE_BYTES = 2**30, 2**31
"""A .jsonl file with a longer line, or a larger .json file, is refused as a whole; see `MAX_ROW_BYTES`."""


def line_records(path: str) -> Iterator[tuple[int, int, int]]:
    """Line number, start and end (in bytes, exclusive) of every line that is not blank."""
    number, offset = 1, 0
    with open_bytes(path) as file:
        while True:
            line, length = _next_line(file, f"{path}:{number}")
            if not length:
                return
            if line is None or (line.removeprefix(BOM) if number == 1 else line).strip():
                yield number, offset, offset + length
            number, offset = number + 1, offset + length


def read_jsonl_shard(shard: Shard) -> RawRows:
    """The rows of a shard of a .jsonl file."""
    with open_bytes(shard.path) as file:
        file.seek(shard.start)
        number, offset = shard.first_line - 1, shard.start
        while offset < shard.stop:
            place = f"{shard.path}:{number + 1}"
            line, length = _next_line(file, place)
            if not length:
                raise DataError(f"{shard.path}: the file was cut short while it was read; run again")
            number, offset = number + 1, offset + length
            if line is None:
                yield place, _too_large(place, length)
            elif line.strip():
                yield place, _parse_line(place, line.removeprefix(BOM) if number == 1 else line)


def _next_line(file: BinaryIO, place: str) -> tuple[bytes | None, int]:
    """Read a line: its bytes, or None if it is too large for a row, and its length in bytes, which is 0 at the end.

    Raises:
        DataError: The line is so long that the file cannot be a file of lines.
    """
    line = file.readline(MAX_ROW_BYTES + 1)
    if len(line) <= MAX_ROW_BYTES:
        return line, len(line)
    length, rest = len(line), line
    while rest and not rest.endswith(b"\n"):
        rest = file.readline(MAX_ROW_BYTES)
        length += len(rest)
        if length > _MAX_LINE_BYTES:
            most = f"{_MAX_LINE_BYTES >> 20:,} MiB"
            raise DataError(f"{place}: a line of more than {most}; put each object on a line of its own")
    return None, length


def _too_large(place: str, length: int) -> Refusal:
    most = f"a row has at most {MAX_ROW_BYTES >> 20} MiB"
    return Refusal(place, "row_too_large", f"{length:,} bytes, {most}; shorten it or leave it out")


def _parse_line(place: str, line: bytes) -> Row | Refusal:
    try:
        row = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Refusal(place, "not_utf8", f"not UTF-8 text (byte {error.start} of the line); convert the file to UTF-8")
    except json.JSONDecodeError as error:
        return Refusal(place, "invalid_json", f"not a JSON object: {error.msg} (character {error.pos + 1} of the line)")
    except (ValueError, RecursionError) as error:
        return Refusal(place, "invalid_json", f"not a JSON object: {error}")
    return _object(place, row)


def _once_named(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} appears twice in one object, beside {[n for n in row if n != twice][:5]}")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_once_named, parse_float=WrittenFloat)


def _object(place: str, row: object) -> Row | Refusal:
    if isinstance(row, dict):
        return row
    return Refusal(place, "invalid_json", f"expected a JSON object, found {type(row).__name__}")


def read_json_shard(shard: Shard) -> RawRows:
    """The rows of a shard of a .json file."""
    for number, row in enumerate(load_json(shard.path)[shard.start : shard.stop], start=shard.start + 1):
        place = f"{shard.path}#{number}"
        yield place, _object(place, row)


def load_json(path: str) -> list[object]:
    """All rows of a .json file, which are not yet known to be objects. They are read once until the file changes.

    Raises:
        DataError: It does not contain a list, or is too large.
    """
    stat = os.stat(path)
    return _load_json(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=1)
def _load_json(path: str, state: tuple[int, int, int]) -> list[object]:  # distinguishes cached values
    with open_bytes(path) as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise DataError(
            f"{path}: contains more than {_MAX_FILE_BYTES >> 20:,} MiB; convert it to .jsonl, one object per line"
        )
    try:
        rows = _DECODER.decode(content.removeprefix(BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); convert the file to UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "; the name of a file with one object per line must end in .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file must contain a list of objects, found {type(rows).__name__}")
    return rows
