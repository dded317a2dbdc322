"""Opens files that may be compressed, and converts errors of reading to errors that name the file."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from sftkey_dist.data.rows.files import file_format
from sftkey_dist.data.rows.shard import RawRows
from sftkey_dist.errors import DataError

MOST_ROW_BYTES = 2**24
"""A larger row is refused. Limits are needed because a few kilobytes of gzip data can expand to any number of bytes."""
BOM = b"\xef\xbb\xbf"


def open_bytes(path: str) -> BinaryIO:
    """Open a file that may be compressed with gzip."""
    return cast(BinaryIO, gzip.open(path) if path.endswith(".gz") else open(path, "rb"))


def refuse_hidden_gzip(path: str) -> None:
    """
    Raises:
        DataError: The file is compressed, and its name does not say so.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b" and not path.endswith(".gz"):
            raise DataError(f"{path}: contains gzip data; decompress it, or add .gz to its name")


@contextmanager
def read_errors_as_data_errors(path: str) -> Iterator[None]:
    """Convert errors of reading a file to a DataError that names the file and says what to do."""
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


def rows_with_data_errors(rows: RawRows, path: str) -> RawRows:
    """The same rows; see `read_errors_as_data_errors`."""
    with read_errors_as_data_errors(path):
        yield from rows
