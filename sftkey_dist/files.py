"""Writing files whole, durably or not at all, reading them with errors that name them, and naming content by digest.

Whatever is written here takes the place of what was there: a link is replaced, never followed. Files get the modes
that the umask gives, those too that a library writes for its owner alone.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sftkey_dist.errors import DataError

Content = TypeVar("Content")

RESTORE_OR_REMOVE = "restore it from a copy, or remove the folder it lies in: the same command makes that again"
_CHUNK_BYTES = 8 * 2**20
_MOST_CHARACTERS = 200
_ANYTHING: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


@contextmanager
def file_written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to, whose file takes the place of ``path`` when the block ends well, else vanishes."""
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    os.close(descriptor)
    scratch = Path(name)
    try:
        yield scratch
        _open_to_others(scratch)
        flush(scratch)
        os.replace(scratch, path)
        flush(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def text_written_whole(path: Path) -> Iterator[IO[str]]:
    """Yield a file that takes the place of ``path`` when the block ends well and vanishes when it does not."""
    with file_written_whole(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        yield file
        file.flush()


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file by one with this text; a reader sees the old file or the new one."""
    with text_written_whole(path) as file:
        file.write(text)


def write_json_atomically(path: Path, content: Any) -> None:
    """`write_text_atomically` for JSON."""
    write_text_atomically(path, to_json(content, indent=2) + "\n")


def copy_atomically(source: Path, target: Path) -> None:
    """Replace ``target`` by a file with the content of ``source``."""
    with file_written_whole(target) as scratch:
        shutil.copyfile(source, scratch)


def open_to_append(path: Path) -> IO[bytes]:
    """A regular file, made if need be, to which everything written is added; it can be read too.

    Raises:
        DataError: it is a link, or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _not_regular(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return os.fdopen(descriptor, "a+b")


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: what is no finite number is null, as it is not known."""
    text = json.dumps(_known(content), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair can only be escaped


def read_json(path: Path, remedy: str = RESTORE_OR_REMOVE) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        remedy: what to do about a file that is not what was written, for the message.

    Raises:
        DataError: the file is missing, empty, cut off or damaged.
    """
    return read_json_as(path, _ANYTHING, remedy)


def read_json_as(path: Path, content: TypeAdapter[Content], remedy: str = RESTORE_OR_REMOVE) -> Content:
    """`read_json` of a file whose content has a type.

    Raises:
        DataError: as `read_json`, or the content is of another type.
    """
    text = read_text(path, remedy)
    if not text.strip("\0 \t\r\n"):
        raise DataError(f"{path}: {'empty' if not text else 'holds nothing but NULs or blanks'}; {remedy}")
    try:
        return content.validate_python(parse_json(text))
    except ValueError as error:
        raise DataError(f"{path}: {_problem(error)}; {remedy}") from None


def read_text(path: Path, remedy: str = RESTORE_OR_REMOVE) -> str:
    """The UTF-8 text of a file.

    Raises:
        DataError: the file is missing, no regular file, or no UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for its writer
            raise DataError(f"{path}: no regular file; {remedy}")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text (byte {error.start}); {remedy}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None


def parse_json(text: str) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextmanager
def folder_kept_if_used(path: Path) -> Iterator[None]:
    """Make a folder for the block; the levels that had to be made and are empty when it ends go again."""
    made = [level for level in (path, *path.parents) if not level.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the first level that holds something, and all above it, stay
            for level in made:
                level.rmdir()


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``path`` when the block ends well and vanishes when it does not.

    Another process that made ``path`` in the meantime wins: equal digests mean equal content.
    """
    make_folder(path.parent)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(scratch, 0o777 & ~_umask())
        yield scratch
        for file in filter(Path.is_file, scratch.rglob("*")):
            _open_to_others(file)
        flush_tree(scratch)
        try:
            os.replace(scratch, path)
        except OSError:
            if path.is_symlink() or not path.is_dir():
                raise
        flush(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and the levels above it that are missing; their names are on disk when this returns."""
    made = [level for level in (path, *path.parents) if not level.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for level in made:
        flush(level.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with what is in it, or a link to one alone; what cannot be removed stays."""
    with suppress(OSError):
        if path.is_symlink():
            path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some file systems of networks flush no folders
            raise
    finally:
        os.close(descriptor)


def flush_those_there(files: Iterable[Path]) -> None:
    """`flush` of the files that exist."""
    for file in filter(Path.exists, files):
        flush(file)


def flush_tree(folder: Path) -> None:
    """Wait until everything in a folder is on disk, what lies deepest first."""
    for level, _, files in os.walk(folder, topdown=False):
        for file in (Path(level) / name for name in files):
            if file.is_file() and not file.is_symlink():
                flush(file)
        flush(Path(level))


def digest_json(content: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path, on_bytes: Callable[[int], None] = lambda number: None) -> str:
    """Hex SHA-256 of a file's bytes; ``on_bytes`` is told of every few that have been read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, _CHUNK_BYTES), b""):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


class FileNote(BaseModel):
    """A file as it was read back after it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    """Size of the file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of its content."""

    @classmethod
    def of(cls, file: Path, on_bytes: Callable[[int], None] = lambda number: None) -> Self:
        """Read a file back; ``on_bytes`` as in `digest_file`."""
        return cls(bytes=file.stat().st_size, sha256=digest_file(file, on_bytes))


def _known(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _known(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_known(value) for value in content]
    return content


def _problem(error: ValueError) -> str:
    """What is wrong with a content, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place + ': ' if place else ''}{first['msg']}"[:_MOST_CHARACTERS]
    return f"damaged or cut off ({error})"[:_MOST_CHARACTERS]


def _not_regular(path: Path) -> DataError:
    return DataError(f"{path}: a link or no regular file, and nothing is written through one; remove it")


def _open_to_others(file: Path) -> None:
    """Give a file the mode that the umask gives; one that shares its content with another file keeps it."""
    if file.lstat().st_nlink == 1 and not file.is_symlink():
        os.chmod(file, 0o666 & ~_umask())


def _umask() -> int:
    """Of this process, without setting it where that can be avoided: threads would make files open to everybody."""
    with suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
