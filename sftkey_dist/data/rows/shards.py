"""Splits a source into shards and reads them, each file by the functions of its format."""

from collections.abc import Callable, Iterator
from pathlib import Path

from sftkey_dist.config.data import FILE_FORMATS, SourceConfig
from sftkey_dist.data.rows.csv_files import csv_records, read_csv_shard
from sftkey_dist.data.rows.files import file_format, local_files, require_file
from sftkey_dist.data.rows.json_files import line_records, load_json, read_json_shard, read_jsonl_shard
from sftkey_dist.data.rows.opening import (
    read_errors_as_data_errors,
    refuse_hidden_compression,
    refuse_utf16,
    rows_with_data_errors,
)
from sftkey_dist.data.rows.shard import RawRows, Shard
from sftkey_dist.data.rows.tables import (
    load_hub,
    num_arrow_rows,
    num_parquet_rows,
    read_arrow_shard,
    read_hub_shard,
    read_parquet_shard,
)
from sftkey_dist.digests import digest_file, digest_json
from sftkey_dist.errors import DataError


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
        return read_hub_shard(source, shard)
    with read_errors_as_data_errors(shard.path):
        return rows_with_data_errors(_READERS[file_format(shard.path)](shard), shard.path)


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
    return str(load_hub(source.path, source.subset, source.split, source.revision)._fingerprint)


def _file_digest(path: str) -> str:
    require_file(path)
    with read_errors_as_data_errors(path):
        return digest_file(Path(path))


def _shards_of(source: SourceConfig, path: str, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    if not path:
        rows = load_hub(source.path, source.subset, source.split, source.revision).num_rows
        yield from _by_rows("", rows, shard_rows, limit)
        return
    require_file(path)
    if file_format(path) not in FILE_FORMATS:
        raise DataError(f"{path}: unknown file format; convert it to .jsonl, .json, .csv, .tsv or .parquet")
    with read_errors_as_data_errors(path):
        refuse_hidden_compression(path)
        if file_format(path) in _TEXTS:
            refuse_utf16(path)
        if file_format(path) in _NUM_ROWS:
            yield from _by_rows(path, _NUM_ROWS[file_format(path)](path), shard_rows, limit)
        else:
            yield from _by_lines(path, shard_rows, limit)


def _by_rows(path: str, rows: int, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    rows = rows if limit is None else min(rows, limit)
    for start in range(0, rows, shard_rows):
        stop = min(rows, start + shard_rows)
        yield Shard(path, 0, stop - start, start, stop)


def _by_lines(path: str, shard_rows: int, limit: int | None) -> Iterator[Shard]:
    """Split a file at the ends of records; ``limit`` may end the last shard early."""
    records = csv_records(path) if file_format(path) in (".csv", ".tsv") else line_records(path)
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


_TEXTS = (".jsonl", ".json", ".csv", ".tsv")
_READERS: dict[str, Callable[[Shard], RawRows]] = {
    ".jsonl": read_jsonl_shard,
    ".csv": read_csv_shard,
    ".tsv": read_csv_shard,
    ".json": read_json_shard,
    ".parquet": read_parquet_shard,
    ".arrow": read_arrow_shard,
}
_NUM_ROWS: dict[str, Callable[[str], int]] = {
    ".json": lambda path: len(load_json(path)),
    ".parquet": num_parquet_rows,
    ".arrow": num_arrow_rows,
}
"""Counts the rows of a file, for formats that are not split by lines."""
