"""Raw rows of files and hub data sets, in shards that any process can read on its own.

A shard is a range: bytes of a file of lines, rows of anything else. Finding the ranges reads a file once without
decoding it; a row that cannot be read becomes a refusal that names its place.
"""

import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import datasets
import pyarrow
import pyarrow.parquet

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.data.example import Refusal
from sftkey_dist.errors import DataError
from sftkey_dist.files import digest_file, digest_json

Row = Mapping[str, Any]
RawRows = Iterator[tuple[str, Row | Refusal]]

_FORMATS = (".jsonl", ".json", ".csv", ".parquet")
_LOOKS_LIKE_A_FILE = re.compile(r"\.(jsonl|json|csv|tsv|parquet|arrow|txt)(\.gz)?$|\*")
_BATCH_ROWS = 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Shard:
    """A range of rows of one file or hub data set.

    Attributes:
        path: the file; empty for a hub data set.
        first_line: number of its first line (.jsonl, .csv).
        num_rows: rows in it.
        start: first byte (.jsonl, .csv) or first row, from 0.
        stop: first byte or row after it.
    """

    path: str
    first_line: int
    num_rows: int
    start: int
    stop: int


def find_shards(source: SourceConfig, shard_rows: int) -> list[Shard]:
    """Cut a source into shards of at most ``shard_rows`` rows, in order, up to its limit.

    Raises:
        DataError: a file or the hub data set cannot be read at all.
    """
    left = source.limit
    shards: list[Shard] = []
    for path in local_files(source) or [""]:
        for shard in _shards_of(source, path, shard_rows, left):
            shards.append(shard)
            left = None if left is None else left - shard.num_rows
        if left == 0:
            break
    return shards


def read_shard(source: SourceConfig, shard: Shard) -> RawRows:
    """Yield a place and a row, or a refusal, for every row of a shard.

    Raises:
        DataError: the file cannot be read any more.
    """
    if not shard.path:
        return _read_hub(source, shard)
    with _damage_is_named(shard.path):
        return _named_damage(_READERS[_format(shard.path)](shard), shard.path)


def content_digest(source: SourceConfig) -> str:
    """Digest of the bytes that a source reads.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    files = local_files(source)
    if files:
        return digest_json([_file_digest(path) for path in files])
    if source.adapter == "decision_memos":
        return "generated"
    return str(_load_hub(source.path, source.subset, source.split, source.revision)._fingerprint)


def local_files(source: SourceConfig) -> list[str]:
    """The local files of a source; none when it lies on the hub."""
    path = source.path or ""
    if "*" in path:
        found = sorted(glob.glob(path))
        if not found:
            raise DataError(f"{path}: no file matches")
        return found
    if Path(path).is_file() or (_LOOKS_LIKE_A_FILE.search(path) and not Path(path).is_dir()):
        return [path]
    return []


def _file_digest(path: str) -> str:
    _require_file(path)
    with _damage_is_named(path):
        return digest_file(Path(path))


def _require_file(path: str) -> None:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such data file")


def _format(path: str) -> str:
    return Path(path.removesuffix(".gz")).suffix


def _shards_of(source: SourceConfig, path: str, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    if not path:
        rows = _load_hub(source.path, source.subset, source.split, source.revision).num_rows
        yield from _by_rows("", rows, shard_rows, limit)
        return
    _require_file(path)
    if _format(path) not in _FORMATS:
        raise DataError(f"{path}: cannot read this kind of file; convert it to .jsonl, .json, .csv or .parquet")
    with _damage_is_named(path):
        _refuse_hidden_gzip(path)
        if _format(path) == ".json":
            yield from _by_rows(path, len(_load_json(path)), shard_rows, limit)
        elif _format(path) == ".parquet":
            yield from _by_rows(path, pyarrow.parquet.ParquetFile(path).metadata.num_rows, shard_rows, limit)
        else:
            yield from _by_lines(path, shard_rows, limit)


def _by_rows(path: str, rows: int, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    rows = rows if limit is None else min(rows, limit)
    for start in range(0, rows, shard_rows):
        stop = min(rows, start + shard_rows)
        yield Shard(path, 0, stop - start, start, stop)


def _by_lines(path: str, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    """Cut at the ends of records; ``limit`` may end the last shard early."""
    records = _csv_records(path) if _format(path) == ".csv" else _line_records(path)
    first_line, num_rows, start, stop = 0, 0, 0, 0
    total = 0
    for line, begin, end in records:
        if num_rows == 0:
            first_line, start = line, begin
        num_rows, stop, total = num_rows + 1, end, total + 1
        if num_rows == shard_rows or total == limit:
            yield Shard(path, first_line, num_rows, start, stop)
            num_rows = 0
        if total == limit:
            return
    if num_rows:
        yield Shard(path, first_line, num_rows, start, stop)


def _open(path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.endswith(".gz") else open(path, "rb"))


def _refuse_hidden_gzip(path: str) -> None:
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b" and not path.endswith(".gz"):
            raise DataError(f"{path}: holds gzip data; decompress it, or let its name end in .gz")


def _line_records(path: str) -> Iterator[tuple[int, int, int]]:
    """Line number, first byte and byte after the end of every line that is not blank."""
    offset = 0
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, offset, offset + len(line)
            offset += len(line)


def _csv_records(path: str) -> Iterator[tuple[int, int, int]]:
    """The same for records of a CSV file, which may span lines; the header is none of them."""
    with _open(path) as file:
        lines = _CountedLines(file)
        reader = _csv_reader(lines)
        _header(path, reader)
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


class _CountedLines:
    """The lines of a binary file as text that keeps every byte, with the place that has been reached."""

    def __init__(self, file: BinaryIO, number: int = 0, stop: int | None = None) -> None:
        self._file = file
        self._stop = stop
        self.number = number
        self.offset = file.tell()

    def __iter__(self) -> "_CountedLines":
        return self

    def __next__(self) -> str:
        line = b"" if self.offset == self._stop else self._file.readline()
        if not line:
            raise StopIteration
        if self.offset == 0:
            self.offset += len(_BOM) if line.startswith(_BOM) else 0
            line = line.removeprefix(_BOM)
        self.number += 1
        self.offset += len(line)
        return line.decode("latin-1")


def _csv_reader(lines: Iterator[str]) -> Any:
    csv.field_size_limit(2**31 - 1)
    return csv.reader(lines, strict=True)


def _header(path: str, reader: Any) -> list[str]:
    try:
        cells: list[str] = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{path}:1: not a CSV header: {error}; is a quotation mark left open?") from error
    names = [name.encode("latin-1").decode("utf-8", "replace") for name in cells]
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}:1: the first line must name each column once, found {names}")
    return names


def _read_jsonl(shard: Shard) -> RawRows:
    with _open(shard.path) as file:
        file.seek(shard.start)
        number, offset = shard.first_line - 1, shard.start
        while offset < shard.stop:
            line = file.readline()
            if not line:
                raise DataError(f"{shard.path}: the file was cut short while it was read; run again")
            number, offset = number + 1, offset + len(line)
            if line.strip():
                place = f"{shard.path}:{number}"
                yield place, _parse_line(place, line.removeprefix(_BOM) if number == 1 else line)


def _parse_line(place: str, line: bytes) -> Row | Refusal:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Refusal(place, "not_utf8", f"not UTF-8 text (byte {error.start} of the line); convert the file to UTF-8")
    except (ValueError, RecursionError) as error:
        return Refusal(place, "invalid_json", f"not a JSON object: {error}")
    return _object(place, row)


def _object(place: str, row: Any) -> Row | Refusal:
    if isinstance(row, dict):
        return row
    return Refusal(place, "invalid_json", f"expected a JSON object, found {type(row).__name__}")


def _read_csv(shard: Shard) -> RawRows:
    with _open(shard.path) as file:
        names = _header(shard.path, _csv_reader(_CountedLines(file)))
        file.seek(shard.start)
        lines = _CountedLines(file, shard.first_line - 1, shard.stop)
        reader = _csv_reader(lines)
        while True:
            place = f"{shard.path}:{lines.number + 1}"
            record = next(reader, None)
            if record is None:
                return
            if record:
                yield place, _csv_row(place, names, record)


def _csv_row(place: str, names: list[str], record: list[str]) -> Row | Refusal:
    if len(record) != len(names):
        return Refusal(place, "wrong_columns", f"{len(record)} columns, the header names {len(names)}")
    try:
        return dict(zip(names, (cell.encode("latin-1").decode("utf-8") for cell in record), strict=True))
    except UnicodeDecodeError as error:
        return Refusal(place, "not_utf8", f"not UTF-8 text (byte {error.start} of a cell); convert the file to UTF-8")


def _read_json(shard: Shard) -> RawRows:
    for number, row in enumerate(_load_json(shard.path)[shard.start : shard.stop], start=shard.start + 1):
        place = f"{shard.path}#{number}"
        yield place, _object(place, row)


@lru_cache(maxsize=1)
def _load_json(path: str) -> list[Any]:
    with _open(path) as file:
        content = file.read()
    try:
        rows = json.loads(content.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); convert the file to UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "; a file with an object a line must end in .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file must hold a list of objects, found {type(rows).__name__}")
    return rows


def _read_parquet(shard: Shard) -> RawRows:
    with pyarrow.parquet.ParquetFile(shard.path) as file:
        begin = 0
        groups = []
        skip = shard.start
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if begin + rows <= shard.start:
                skip -= rows
            elif begin < shard.stop:
                groups.append(group)
            begin += rows
        number = shard.start - skip
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups):
            first, last = max(shard.start - number, 0), min(shard.stop - number, batch.num_rows)
            if first < last:
                for i, row in enumerate(batch.slice(first, last - first).to_pylist(), start=number + first + 1):
                    yield f"{shard.path}#{i}", row
            number += batch.num_rows
            if number >= shard.stop:
                return


def _read_hub(source: SourceConfig, shard: Shard) -> RawRows:
    rows = _load_hub(source.path, source.subset, source.split, source.revision)
    for begin in range(shard.start, shard.stop, _BATCH_ROWS):
        columns = rows[begin : min(begin + _BATCH_ROWS, shard.stop)]
        for number, cells in enumerate(zip(*columns.values(), strict=True), start=begin + 1):
            yield f"{source.path}/{source.split}#{number}", dict(zip(columns, cells, strict=True))


_READERS: dict[str, Callable[[Shard], RawRows]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


@lru_cache(maxsize=4)
def _load_hub(path: str, subset: str | None, split: str, revision: str | None) -> Any:
    try:
        return datasets.load_dataset(path, subset, split=split, revision=revision)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise DataError(
            f"cannot load data set {path!r} (split {split!r}) from the hub: "
            f"{' '.join(str(error).split())[:300]}; for a local file give a path that ends in .jsonl, .json, .csv or "
            f".parquet"
        ) from error


@contextmanager
def _damage_is_named(path: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip data ({error}); fetch or compress it again") from error
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({' '.join(str(error).split())[:200]}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _named_damage(rows: RawRows, path: str) -> RawRows:
    with _damage_is_named(path):
        yield from rows
