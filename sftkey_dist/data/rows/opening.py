"""Opens files that may be compressed, and converts errors of reading to errors that name the file."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.data.rows.files import file_format
from sftkey_dist.data.rows.shard import RawRows
from sftkey_dist.errors import DataError, TransientDataError

MAX_ROW_BYTES = 2**24
"""A larger row is refused. A limit is needed because a few kilobytes of compressed data can expand to any size."""
_SKIPPED_AT_ONCE_BYTES = 2**20
BOM = b"\xef\xbb\xbf"


def open_bytes(path: str) -> BinaryIO:
    """Open a file that may be compressed with gzip or Zstandard."""
    match Path(path).suffix.lower():
        case ".gz":
            return cast(BinaryIO, gzip.open(path))
        case ".zst":
            return cast(BinaryIO, io.BufferedReader(_ZstandardFile(path)))
        case _:
            return open(path, "rb")


def refuse_hidden_compression(path: str) -> None:
    """
    Raises:
        DataError: The file is compressed, and its name does not say so.
    """
    with open(path, "rb") as file:
        begin = file.read(4)
    for magic, name, ending in ((b"\x1f\x8b", "gzip", ".gz"), (b"\x28\xb5\x2f\xfd", "Zstandard", ".zst")):
        if begin.startswith(magic) and Path(path).suffix.lower() != ending:
            raise DataError(f"{path}: contains {name} data; decompress it, or add {ending} to its name")


def refuse_utf16(path: str) -> None:
    """
    Raises:
        DataError: A file of text is in UTF-16 or UTF-32, in which ASCII characters contain bytes that are 0.
    """
    with open_bytes(path) as file:
        begin = file.read(4)
    if begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in begin:
        raise DataError(f"{path}: text in UTF-16 or UTF-32, not in UTF-8; convert the file, or save it as CSV UTF-8")


class _ZstandardFile(io.RawIOBase):
    """A file that is decompressed while it is read, forwards only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream = pyarrow.CompressedInputStream(pyarrow.OSFile(path), "zstd")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            length: int = self._stream.readinto(buffer)
        except OSError as error:
            raise DataError(f"{self._path}: damaged Zstandard data ({error}); fetch or compress it again") from error
        self._position += length
        return length

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise io.UnsupportedOperation("a compressed file is read forwards")
        while self._position < offset and self.read(min(offset - self._position, _SKIPPED_AT_ONCE_BYTES)):
            pass
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


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
        raise DataError(f"{path}: not {kind} file ({in_a_line(error)}); fetch it again") from error
    except OverflowError as error:
        problem = f"a date or time is out of range ({error}); write its column as text, or leave it out"
        raise DataError(f"{path}: {problem}") from error
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read: {error.strerror or error}") from error


def rows_with_data_errors(rows: RawRows, path: str) -> RawRows:
    """The same rows; see `read_errors_as_data_errors`."""
    with read_errors_as_data_errors(path):
        yield from rows
