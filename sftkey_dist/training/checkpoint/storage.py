"""Where checkpoints lie: a folder that all nodes share, or an object store."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType, copy_files

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ConfigError, StorageError
from sftkey_dist.files import file_written_whole

_TRIES, _FIRST_PAUSE_SECONDS = 5, 1.0
Answer = TypeVar("Answer")


class Storage(Protocol):
    """Folders of files, one level deep.

    Any method raises StorageError where an object store does not answer for a while.
    """

    @property
    def place(self) -> str:
        """Path or URI, for messages."""
        ...

    def folders(self) -> list[str]:
        """Names of the folders; none where nothing was stored yet."""
        ...

    def files(self, folder: str) -> set[str]:
        """Names of a folder's whole files."""
        ...

    @contextmanager
    def writing(self, folder: str, file: str) -> Iterator[Path]:
        """Yield a path to write to; when the block ends well, the file is there, whole and durable."""
        ...

    @contextmanager
    def reading(self, folder: str, file: str) -> Iterator[Path]:
        """Yield a local path to a file.

        Raises:
            OSError: there is none.
        """
        ...

    def remove(self, folder: str, first: str) -> None:
        """Remove a folder, one of its files before all others; fine if it is gone."""
        ...

    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody knows."""
        ...


def open_storage(place: str | Path) -> Storage:
    """A path is a folder; a URI such as ``s3://bucket/runs`` is an object store that pyarrow knows.

    Raises:
        ConfigError: no such kind of storage, or it does not answer.
    """
    if "://" not in str(place):
        return FolderStorage(Path(place))
    try:
        filesystem, path = FileSystem.from_uri(str(place))
    except (ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{place}: {in_a_line(error)}") from error
    return ObjectStorage(str(place).partition("?")[0], filesystem, path)


class FolderStorage:
    """On a file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        """See Storage."""
        return str(self._root)

    def folders(self) -> list[str]:
        """See Storage."""
        with suppress(FileNotFoundError):
            return [entry.name for entry in os.scandir(self._root) if entry.is_dir()]
        return []

    def files(self, folder: str) -> set[str]:
        """See Storage."""
        with suppress(FileNotFoundError):
            return {entry.name for entry in os.scandir(self._root / folder) if not entry.name.startswith(".")}
        return set()

    @contextmanager
    def writing(self, folder: str, file: str) -> Iterator[Path]:
        """See Storage: a hidden file that is flushed to disk, then renamed."""
        with file_written_whole(self._root / folder / file) as scratch:
            yield scratch

    @contextmanager
    def reading(self, folder: str, file: str) -> Iterator[Path]:
        """See Storage."""
        path = self._root / folder / file
        path.stat()
        yield path

    def remove(self, folder: str, first: str) -> None:
        """See Storage."""
        (self._root / folder / first).unlink(missing_ok=True)
        shutil.rmtree(self._root / folder, ignore_errors=True)

    def free_bytes(self) -> int | None:
        """See Storage."""
        levels = (self._root, *self._root.parents)
        return shutil.disk_usage(next(level for level in levels if level.exists())).free


class ObjectStorage:
    """In an object store; a put is whole or not at all. Calls are repeated for some seconds before they fail."""

    def __init__(self, place: str, filesystem: FileSystem, root: str) -> None:
        self._place, self._filesystem, self._root = place, filesystem, root.rstrip("/")

    @property
    def place(self) -> str:
        """See Storage."""
        return self._place

    def folders(self) -> list[str]:
        """See Storage."""
        return [entry.base_name for entry in self._entries(self._root) if entry.type == FileType.Directory]

    def files(self, folder: str) -> set[str]:
        """See Storage."""
        return {entry.base_name for entry in self._entries(f"{self._root}/{folder}") if entry.type == FileType.File}

    @contextmanager
    def writing(self, folder: str, file: str) -> Iterator[Path]:
        """See Storage: written to local scratch, then uploaded."""
        with tempfile.TemporaryDirectory(prefix="sftkey-upload-") as scratch:
            local = Path(scratch) / file
            yield local
            target = f"{self._root}/{folder}/{file}"
            self._patiently(lambda: copy_files(str(local), target, destination_filesystem=self._filesystem))

    @contextmanager
    def reading(self, folder: str, file: str) -> Iterator[Path]:
        """See Storage: downloaded to local scratch."""
        with tempfile.TemporaryDirectory(prefix="sftkey-download-") as scratch:
            local = Path(scratch) / file
            source = f"{self._root}/{folder}/{file}"
            self._patiently(lambda: copy_files(source, str(local), source_filesystem=self._filesystem))
            yield local

    def remove(self, folder: str, first: str) -> None:
        """See Storage."""
        path = f"{self._root}/{folder}"
        with suppress(FileNotFoundError):
            if first in self.files(folder):
                self._patiently(lambda: self._filesystem.delete_file(f"{path}/{first}"))
            self._patiently(lambda: self._filesystem.delete_dir(path))

    def free_bytes(self) -> int | None:
        """See Storage."""
        return None

    def _entries(self, path: str) -> list[Any]:
        selector = FileSelector(path, allow_not_found=True)
        return list(self._patiently(lambda: self._filesystem.get_file_info(selector)))

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        """What is not there is an answer; anything else may pass."""
        pause = _FIRST_PAUSE_SECONDS
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                return call()
            except FileNotFoundError:
                raise
            except (OSError, ArrowException) as error:
                if not tries_left:
                    raise StorageError(f"{self._place} does not answer: {in_a_line(error)}") from error
                time.sleep(pause)
                pause *= 2
        raise AssertionError("the last try returns or raises")
