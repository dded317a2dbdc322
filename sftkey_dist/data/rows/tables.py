"""Rows of Parquet files, Arrow files and hub data sets, which all arrive as Arrow tables."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import cast

import datasets
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.data.rows.files import loading_errors_as_data_errors
from sftkey_dist.data.rows.shard import RawRows, Shard
from sftkey_dist.errors import DataError

_BATCH_ROWS = 1024


def num_parquet_rows(path: str) -> int:
    """The number of rows of a Parquet file."""
    with pyarrow.parquet.ParquetFile(path) as file:
        _refuse_repeated_names(path, file.schema_arrow)
        return int(file.metadata.num_rows)


def num_arrow_rows(path: str) -> int:
    """The number of rows of an Arrow file."""
    rows = _load_arrow(path)
    _refuse_repeated_names(path, rows.schema)
    return int(rows.num_rows)


def read_parquet_shard(shard: Shard) -> RawRows:
    """The rows of a shard of a Parquet file; only its row groups are read."""
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


def read_arrow_shard(shard: Shard) -> RawRows:
    """The rows of a shard of an Arrow file."""
    return _read_batches(_load_arrow(shard.path).slice, shard.path, shard)


def read_hub_shard(source: SourceConfig, shard: Shard) -> RawRows:
    """The rows of a shard of a hub data set."""
    rows = load_hub(source.path, source.subset, source.split, source.revision).with_format("arrow")
    return _read_batches(lambda begin, number: rows[begin : begin + number], f"{source.path}/{source.split}", shard)


def _read_batches(slice_of: Callable[[int, int], pyarrow.Table], place: str, shard: Shard) -> RawRows:
    """Yield the rows of a table; ``slice_of(first_row, num_rows)`` returns a part of the table."""
    for begin in range(shard.start, shard.stop, _BATCH_ROWS):
        batch = slice_of(begin, min(_BATCH_ROWS, shard.stop - begin))
        for number, row in enumerate(_rows_of(batch), start=begin + 1):
            yield f"{place}#{number}", row


def _load_arrow(path: str) -> pyarrow.Table:
    """Memory-map an Arrow file, in the streaming format, which `datasets` writes, or in the file format."""
    with pyarrow.memory_map(path) as file:
        try:
            return pyarrow.ipc.open_stream(file).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(file).read_all()


@lru_cache(maxsize=4)
def load_hub(path: str, subset: str | None, split: str, revision: str | None) -> datasets.Dataset:
    """A split of a hub data set.

    Raises:
        DataError: It cannot be loaded.
    """
    with loading_errors_as_data_errors(path, split):
        rows = datasets.load_dataset(path, subset, split=split, revision=revision)
    _refuse_repeated_names(path, rows.data.schema)
    return rows


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


def _rows_of(table: pyarrow.RecordBatch | pyarrow.Table) -> list[dict[str, object]]:
    """Rows as mappings. A float32 becomes the float64 with the same shortest digits: 12.1, not 12.100000381469727."""
    digits = _float32_as(pyarrow.string(), table.schema)
    if digits != table.schema:
        table = table.cast(digits).cast(_float32_as(pyarrow.float64(), table.schema))
    return cast(list[dict[str, object]], table.to_pylist())


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
