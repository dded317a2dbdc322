"""Writes files completely and durably or not at all.

Writing replaces an existing file or link; links are never followed. Files get the modes that the umask gives, even if a
library has created them readable for their owner only.
"""

import errno
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sftkey_dist.errors import DataError

_UNFINISHED = ".unfinished"
"""Ends the hidden names of temporary files and folders, so that those of killed writers are told from others."""


def _put(scratch: Path, path: Path) -> None:
    os.replace(scratch, path)


def _put_if_absent(scratch: Path, path: Path) -> None:
    """Give a file its name, unless there is another one of that name by now."""
    try:
        os.link(scratch, path)
    except FileExistsError:
        return
    except OSError:  # the file system has no hard links
        os.replace(scratch, path)


@contextmanager
def file_written_whole(path: Path, put: Callable[[Path, Path], None] = _put) -> Iterator[Path]:
    """Yield a temporary path. Its file replaces ``path`` if the block succeeds, and is deleted otherwise.

    Args:
        path: path of the file.
        put: gives the finished file, the first argument, the name of the second.
    """
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(_UNFINISHED, f".{path.name[:100]}.", path.parent)
    os.close(descriptor)
    scratch = Path(name)
    try:
        with write_errors_named(path):
            yield scratch
            apply_umask(scratch)
            flush(scratch)
            put(scratch, path)
            flush(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Add the file to errors that have none, such as that of a full disk, in which numpy leaves out all but a text."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


@contextmanager
def text_written_whole(path: Path) -> Iterator[IO[str]]:
    """Yield a file that replaces ``path`` if the block succeeds, and is deleted otherwise."""
    with file_written_whole(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        yield file
        file.flush()


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file by one with this text; readers see either the old file or the new one."""
    with text_written_whole(path) as file:
        file.write(text)


def write_json_atomically(path: Path, content: object) -> None:
    """Replace a file by one with this content as JSON; see `write_text_atomically`."""
    write_text_atomically(path, _json_text(content))


def holds_json(path: Path, content: object) -> bool:
    """Whether `write_json_atomically` has written this content to a file."""
    return path.is_file() and path.read_text(encoding="utf-8") == _json_text(content)


def _json_text(content: object) -> str:
    return to_json(content, indent=2) + "\n"


def copy_atomically(source: Path, target: Path) -> None:
    """Replace ``target`` by a file with the content of ``source``."""
    with file_written_whole(target) as scratch:
        shutil.copyfile(source, scratch)


def copy_if_absent(source: Path, target: Path) -> None:
    """Create ``target`` with the content of ``source``. If it exists when the content is written, it stays as it is."""
    with file_written_whole(target, _put_if_absent) as scratch:
        shutil.copyfile(source, scratch)


def write_text_if_absent(path: Path, text: str) -> None:
    """Create a file with this text. If it exists when the text is written, it stays as it is."""
    with file_written_whole(path, _put_if_absent) as scratch:
        scratch.write_text(text, encoding="utf-8")


def open_to_append(path: Path) -> IO[bytes]:
    """Open a regular file for appending and reading; it is created if it does not exist.

    Raises:
        DataError: The path is a link, or not a regular file.
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


def to_json(content: object, indent: int | None = None) -> str:
    """Standard JSON; non-finite numbers, which it does not have, are written as null."""
    text = json.dumps(_known(content), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()  # lone surrogates can only be escaped


@contextmanager
def folder_kept_if_used(path: Path) -> Iterator[None]:
    """Create a folder for the block. Levels that were created and are empty at its end are removed again."""
    made = [level for level in (path, *path.parents) if not level.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the first level that is not empty, and all above it, are kept
            for level in made:
                level.rmdir()


def copy_tree(source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2) -> None:
    """Copy what is in a folder into another, which exists.

    Raises:
        OSError: the first file that could not be copied; `shutil` has a class of its own, which lists them all.
    """
    try:
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=copy)
    except shutil.Error as error:
        _, file, problem = error.args[0][0]
        raise OSError(errno.EIO, problem, file) from error


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` if the block succeeds, and is deleted otherwise.

    If another process has created ``path`` in the meantime, its folder is kept: equal digests mean equal content.
    """
    make_folder(path.parent)
    scratch = Path(tempfile.mkdtemp(_UNFINISHED, f".{path.name}.", path.parent))
    try:
        os.chmod(scratch, 0o777 & ~_umask())
        yield scratch
        for file in filter(Path.is_file, scratch.rglob("*")):
            apply_umask(file)
        flush_tree(scratch)
        try:
            os.replace(scratch, path)
        except OSError:
            if path.is_symlink() or not path.is_dir():
                raise
        flush(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder at any depth, in order, without hidden ones and without the bytecode of Python."""

    def is_by_product(path: Path) -> bool:
        return path.suffix == ".pyc" or any(part == "__pycache__" or part.startswith(".") for part in path.parts)

    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in found if not is_by_product(file.relative_to(folder)))


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents; their names are on disk when this returns."""
    made = [level for level in (path, *path.parents) if not level.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for level in made:
        flush(level.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder with its contents, or only the link if it is a link.

    Its name is free at once: what cannot be removed, such as a file that is open on NFS, is left under a hidden one.
    """
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    with suppress(OSError):
        if path.is_symlink():
            path.unlink()
            return
        path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)  # where it could not be renamed


def remove_scratch(folder: Path, *, at_any_depth: bool = True) -> None:
    """Remove what writers of this module have left in a folder that were killed. No other may be at work there."""
    pattern = f".*{_UNFINISHED}"
    for left in list(folder.rglob(pattern) if at_any_depth else folder.glob(pattern)):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def apply_umask(file: Path) -> None:
    """Give a file the mode that the umask gives, unless it shares its content with another file by a hard link."""
    if file.lstat().st_nlink == 1 and not file.is_symlink():
        os.chmod(file, 0o666 & ~_umask())


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)


def flush_those_there(files: Iterable[Path]) -> None:
    """`flush` of the files that exist."""
    for file in filter(Path.exists, files):
        flush(file)


def flush_tree(folder: Path) -> None:
    """Wait until everything in a folder is on disk, the deepest levels first."""
    for level, _, files in os.walk(folder, topdown=False):
        for file in (Path(level) / name for name in files):
            if file.is_file() and not file.is_symlink():
                flush(file)
        flush(Path(level))


def _known(content: object) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _known(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_known(value) for value in content]
    return content


def _not_regular(path: Path) -> DataError:
    return DataError(f"{path}: a link or not a regular file, to which nothing is written; remove it")


def _umask() -> int:
    """The umask, if possible read without setting it, because other threads may create files meanwhile."""
    with suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
