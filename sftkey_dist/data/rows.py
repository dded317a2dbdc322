"""Reads raw rows of files and hub data sets, in shards that any process can read independently.

A shard is a range of bytes for files of lines, and a range of rows for everything else. Finding the ranges reads a file
once without decoding it. A row that cannot be read becomes a refusal that names its place. The files of a folder are
read one by one.
"""

import csv
import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import datasets
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.values import WrittenFloat
from sftkey_dist.errors import DataError
from sftkey_dist.files import digest_file, digest_json

Row = Mapping[str, Any]
RawRows = Iterator[tuple[str, Row | Refusal]]

_FORMATS = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
_HOLDS_ROWS = frozenset(_FORMATS) - {".json"}
"""Formats of files that certainly contain rows; a .json file in a folder may also be a description of the data."""
_LOOKS_LIKE_A_FILE = re.compile(r"\.(jsonl|json|csv|tsv|parquet|arrow|txt)(\.gz)?$|\*")
_BATCH_ROWS = 1024
_MOST_ROW_BYTES, _MOST_LINE_BYTES, _MOST_FILE_BYTES = 2**24, 2**30, 2**31
"""Limits: a larger row is refused. A file with a longer line, or a larger .json file, is refused as a whole.

They are needed because a few kilobytes of gzip data can expand to any number of bytes.
"""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Shard:
    """A range of rows of one file or hub data set.

    Attributes:
        path: path of the file; empty for a hub data set.
        first_line: number of its first line (.jsonl, .csv).
        num_rows: number of rows.
        start: first byte (.jsonl, .csv) or first row, from 0.
        stop: end of the range of bytes or rows, exclusive.
    """

    path: str
    first_line: int
    num_rows: int
    start: int
    stop: int


def find_shards(source: SourceConfig, shard_rows: int) -> list[Shard]:
    """Split a source into shards of at most ``shard_rows`` rows, in order, up to its limit.

    Raises:
        DataError: A file or the hub data set cannot be read at all.
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
    """Yield the place of every row of a shard with the row, or with a refusal.

    Raises:
        DataError: The file can no longer be read.
    """
    if not shard.path:
        return _read_hub(source, shard)
    with _read_errors_as_data_errors(shard.path):
        return _rows_with_data_errors(_READERS[file_format(shard.path)](shard), shard.path)


def content_digest(source: SourceConfig) -> str:
    """Digest of the bytes that a source reads.

    Raises:
        DataError: A file is missing or cannot be read.
    """
    files = local_files(source)
    if files:
        return digest_json([_file_digest(path) for path in files])
    if source.adapter == "decision_memos":
        return "generated"
    return str(_load_hub(source.path, source.subset, source.split, source.revision)._fingerprint)


def local_files(source: SourceConfig) -> list[str]:
    """The local files of a source; empty if the source is on the hub."""
    path = source.path or ""
    if "*" in path:
        found = sorted(glob.glob(path))
        if not found:
            raise DataError(f"{path}: no file matches")
        return found
    if Path(path).is_file() or (_LOOKS_LIKE_A_FILE.search(path) and not Path(path).is_dir()):
        return [path]
    return _files_of_folder(source) if path and Path(path).is_dir() else []


def _files_of_folder(source: SourceConfig) -> list[str]:
    """The files of a split, as `datasets` finds them, sorted by name.

    Raises:
        DataError: There are none, or it is unclear whether some files of the folder belong to the split.
    """
    folder = str(source.path)
    by_split = _splits_of_folder(folder, source.subset)
    if source.split not in by_split:
        raise DataError(
            f"{folder}: no files of split {source.split!r}; there are {', '.join(by_split) or 'no data files'}"
        )
    listed = {file for files in by_split.values() for file in files}
    left_out = sorted(set(_data_files_below(folder)) - listed)
    if left_out and source.subset is None and not (Path(folder) / "README.md").is_file():
        raise DataError(
            f"{folder}: {left_out[0]} is of another format than the other files, or its name has no split; move it, or "
            f"give a pattern such as {folder}/*{Path(left_out[0]).suffix}"
        )
    return by_split[source.split]


def _splits_of_folder(folder: str, subset: str | None) -> dict[str, list[str]]:
    """The files of each split.

    `datasets` only finds the files. Its readers are not used, because they guess types: text that looks like a date
    becomes a timestamp.
    """
    with _loading_errors_as_data_errors(folder):
        found = datasets.load_dataset_builder(folder, subset).config.data_files or {}
    return {str(split): sorted(_as_below(folder, str(file)) for file in files) for split, files in found.items()}


def _as_below(folder: str, file: str) -> str:
    """The path of a file below the folder as it was given; links inside the folder are not followed."""
    for root in (os.path.abspath(folder), os.path.realpath(folder)):
        if file.startswith(root + os.sep):
            return os.path.join(folder, os.path.relpath(file, root))
    return file


def _data_files_below(folder: str) -> Iterator[str]:
    for file in Path(folder).rglob("*"):
        is_hidden = any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
        if file_format(file.name) in _HOLDS_ROWS and not is_hidden and file.is_file():
            yield str(file)


def _file_digest(path: str) -> str:
    _require_file(path)
    with _read_errors_as_data_errors(path):
        return digest_file(Path(path))


def _require_file(path: str) -> None:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such data file")


def file_format(path: str) -> str:
    """The format of a file by the ending of its name, such as `.jsonl`."""
    return Path(path.removesuffix(".gz")).suffix


def _shards_of(source: SourceConfig, path: str, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    if not path:
        rows = _load_hub(source.path, source.subset, source.split, source.revision).num_rows
        yield from _by_rows("", rows, shard_rows, limit)
        return
    _require_file(path)
    if file_format(path) not in _FORMATS:
        raise DataError(f"{path}: unknown file format; convert it to .jsonl, .json, .csv or .parquet")
    with _read_errors_as_data_errors(path):
        _refuse_hidden_gzip(path)
        if file_format(path) in _NUM_ROWS:
            yield from _by_rows(path, _NUM_ROWS[file_format(path)](path), shard_rows, limit)
        else:
            yield from _by_lines(path, shard_rows, limit)


def _num_parquet_rows(path: str) -> int:
    with pyarrow.parquet.ParquetFile(path) as file:
        _refuse_repeated_names(path, file.schema_arrow)
        return int(file.metadata.num_rows)


def _num_arrow_rows(path: str) -> int:
    rows = _load_arrow(path)
    _refuse_repeated_names(path, rows.schema)
    return int(rows.num_rows)


def _refuse_repeated_names(path: str, fields: Iterable[pyarrow.Field]) -> None:
    """Refuse two columns with the same name: a row is a mapping, so the first of them would be lost."""
    fields = list(fields)
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: column {twice!r} occurs more than once; rename one of the columns {names}")
    for field in fields:
        if pyarrow.types.is_nested(field.type) and not pyarrow.types.is_map(field.type):
            _refuse_repeated_names(path, [field.type.field(i) for i in range(field.type.num_fields)])


def _by_rows(path: str, rows: int, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    rows = rows if limit is None else min(rows, limit)
    for start in range(0, rows, shard_rows):
        stop = min(rows, start + shard_rows)
        yield Shard(path, 0, stop - start, start, stop)


def _by_lines(path: str, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    """Split a file at the ends of records; ``limit`` may end the last shard early."""
    records = _csv_records(path) if file_format(path) == ".csv" else _line_records(path)
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
            raise DataError(f"{path}: contains gzip data; decompress it, or add .gz to its name")


def _line_records(path: str) -> Iterator[tuple[int, int, int]]:
    """Line number, start and end (in bytes, exclusive) of every line that is not blank."""
    number, offset = 1, 0
    with _open(path) as file:
        while True:
            line, length = _next_line(file, f"{path}:{number}")
            if not length:
                return
            if line is None or line.strip():
                yield number, offset, offset + length
            number, offset = number + 1, offset + length


def _next_line(file: BinaryIO, place: str) -> tuple[bytes | None, int]:
    """Read a line: its bytes, or None if it is too large for a row, and its length in bytes, which is 0 at the end.

    Raises:
        DataError: The line is so long that the file cannot be a file of lines.
    """
    line = file.readline(_MOST_ROW_BYTES + 1)
    if len(line) <= _MOST_ROW_BYTES:
        return line, len(line)
    length, rest = len(line), line
    while rest and not rest.endswith(b"\n"):
        rest = file.readline(_MOST_ROW_BYTES)
        length += len(rest)
        if length > _MOST_LINE_BYTES:
            most = f"{_MOST_LINE_BYTES >> 20:,} MiB"
            raise DataError(f"{place}: a line of more than {most}; put each object on a line of its own")
    return None, length


def _csv_records(path: str) -> Iterator[tuple[int, int, int]]:
    """Line number, start and end of every record of a CSV file after the header; a record may span several lines."""
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
    """Yields the lines of a binary file as text that preserves every byte, and tracks the current position."""

    def __init__(self, file: BinaryIO, number: int = 0, stop: int | None = None) -> None:
        self._file = file
        self._stop = stop
        self.number = number
        self.offset = file.tell()

    def __iter__(self) -> "_CountedLines":
        return self

    def __next__(self) -> str:
        line = b"" if self.offset == self._stop else self._file.readline(_MOST_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        if len(line) > _MOST_ROW_BYTES:
            raise csv.Error(f"a line of more than {_MOST_ROW_BYTES >> 20} MiB")
        if self.offset == 0:
            self.offset += len(_BOM) if line.startswith(_BOM) else 0
            line = line.removeprefix(_BOM)
        self.number += 1
        self.offset += len(line)
        return line.decode("latin-1")


def _csv_reader(lines: Iterator[str]) -> Any:
    csv.field_size_limit(_MOST_ROW_BYTES)
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
            place = f"{shard.path}:{number + 1}"
            line, length = _next_line(file, place)
            if not length:
                raise DataError(f"{shard.path}: the file was cut short while it was read; run again")
            number, offset = number + 1, offset + length
            if line is None:
                yield place, _too_large(place, length)
            elif line.strip():
                yield place, _parse_line(place, line.removeprefix(_BOM) if number == 1 else line)


def _too_large(place: str, length: int) -> Refusal:
    most = f"a row has at most {_MOST_ROW_BYTES >> 20} MiB"
    return Refusal(place, "row_too_large", f"{length:,} bytes, {most}; shorten it or leave it out")


def _parse_line(place: str, line: bytes) -> Row | Refusal:
    try:
        row = _JSON.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Refusal(place, "not_utf8", f"not UTF-8 text (byte {error.start} of the line); convert the file to UTF-8")
    except (ValueError, RecursionError) as error:
        return Refusal(place, "invalid_json", f"not a JSON object: {error}")
    return _object(place, row)


def _once_named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} appears twice in one object, beside {[n for n in row if n != twice][:5]}")
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_once_named, parse_float=WrittenFloat)


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
        content = file.read(_MOST_FILE_BYTES + 1)
    if len(content) > _MOST_FILE_BYTES:
        raise DataError(
            f"{path}: contains more than {_MOST_FILE_BYTES >> 20:,} MiB; convert it to .jsonl, one object per line"
        )
    try:
        rows = _JSON.decode(content.removeprefix(_BOM).decode("utf-8"))
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
                for i, row in enumerate(_rows_of(batch.slice(first, last - first)), start=number + first + 1):
                    yield f"{shard.path}#{i}", row
            number += batch.num_rows
            if number >= shard.stop:
                return


def _read_arrow(shard: Shard) -> RawRows:
    return _read_batches(_load_arrow(shard.path).slice, shard.path, shard)


def _read_hub(source: SourceConfig, shard: Shard) -> RawRows:
    rows = _load_hub(source.path, source.subset, source.split, source.revision).with_format("arrow")
    return _read_batches(lambda begin, number: rows[begin : begin + number], f"{source.path}/{source.split}", shard)


def _read_batches(slice_of: Callable[[int, int], pyarrow.Table], place: str, shard: Shard) -> RawRows:
    """Yield the rows of a table; ``slice_of(first_row, num_rows)`` returns a part of the table."""
    for begin in range(shard.start, shard.stop, _BATCH_ROWS):
        batch = slice_of(begin, min(_BATCH_ROWS, shard.stop - begin))
        for number, row in enumerate(_rows_of(batch), start=begin + 1):
            yield f"{place}#{number}", row


def _rows_of(table: pyarrow.RecordBatch | pyarrow.Table) -> list[dict[str, Any]]:
    """Rows as mappings. A float32 becomes the float64 with the same shortest digits: 12.1, not 12.100000381469727."""
    digits = _float32_as(pyarrow.string(), table.schema)
    if digits != table.schema:
        table = table.cast(digits).cast(_float32_as(pyarrow.float64(), table.schema))
    return cast(list[dict[str, Any]], table.to_pylist())


def _float32_as(leaf: pyarrow.DataType, schema: pyarrow.Schema) -> pyarrow.Schema:
    return pyarrow.schema([field.with_type(_with_float32_as(leaf, field.type)) for field in schema], schema.metadata)


def _with_float32_as(leaf: pyarrow.DataType, kind: pyarrow.DataType) -> pyarrow.DataType:
    if pyarrow.types.is_float32(kind):
        return leaf
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([field.with_type(_with_float32_as(leaf, field.type)) for field in kind])
    if pyarrow.types.is_fixed_size_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_with_float32_as(leaf, kind.value_type)), kind.list_size)
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        make = pyarrow.large_list if pyarrow.types.is_large_list(kind) else pyarrow.list_
        return make(kind.value_field.with_type(_with_float32_as(leaf, kind.value_type)))
    return kind


_READERS: dict[str, Callable[[Shard], RawRows]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
_NUM_ROWS: dict[str, Callable[[str], int]] = {
    ".json": lambda path: len(_load_json(path)),
    ".parquet": _num_parquet_rows,
    ".arrow": _num_arrow_rows,
}
"""Counts the rows of a file, for formats that are not split by lines."""


def _load_arrow(path: str) -> pyarrow.Table:
    """Memory-map an Arrow file, in the streaming format, which `datasets` writes, or in the file format."""
    with pyarrow.memory_map(path) as file:
        try:
            return pyarrow.ipc.open_stream(file).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(file).read_all()


@lru_cache(maxsize=4)
def _load_hub(path: str, subset: str | None, split: str, revision: str | None) -> Any:
    with _loading_errors_as_data_errors(path, split):
        rows = datasets.load_dataset(path, subset, split=split, revision=revision)
    _refuse_repeated_names(path, rows.data.schema)
    return rows


@contextmanager
def _loading_errors_as_data_errors(path: str, split: str = "") -> Iterator[None]:
    """Convert errors of `datasets`, which raises many unrelated classes, to a DataError of one line."""
    try:
        yield
    except Exception as error:
        problem = " ".join(str(error).split())[:300]
        if not split:
            raise DataError(f"{path}: cannot find data files in this folder: {problem}") from error
        raise DataError(
            f"cannot load data set {path!r} (split {split!r}) from the hub: {problem}; for a local file give a path "
            f"that ends in .jsonl, .json, .csv or .parquet"
        ) from error


@contextmanager
def _read_errors_as_data_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip data ({error}); fetch or compress it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a column of text is not UTF-8 ({error.reason}); write it again") from error
    except pyarrow.ArrowException as error:
        kind = "an Arrow" if file_format(path) == ".arrow" else "a Parquet"
        raise DataError(f"{path}: not {kind} file ({' '.join(str(error).split())[:200]}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _rows_with_data_errors(rows: RawRows, path: str) -> RawRows:
    with _read_errors_as_data_errors(path):
        yield from rows
