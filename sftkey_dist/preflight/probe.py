"""What runs on a node to measure it."""

import importlib.metadata
import os
import platform
import socket
import time
from dataclasses import replace
from pathlib import Path

from sftkey_dist.machine import free_memory_bytes
from sftkey_dist.preflight.records import NodeGroup, Software, Speeds, Storage
from sftkey_dist.release import code_digest, version

_PACKAGES = ("torch", "ray", "deepspeed", "transformers")
_FILE_BYTES = 32 * 2**20
_BLOCK_BYTES = 2**20
_MAX_SECONDS_OF_A_FILE = 2.5


class Probe:
    """Measures the node that it runs on; an actor on every node."""

    def __init__(self) -> None:
        self._listening: socket.socket | None = None

    def clock(self) -> float:
        """The time of this node, in seconds since the epoch."""
        return time.time()

    def receive(self, payload: bytes) -> int:
        """Take bytes that the driver sends; returns their number."""
        return len(payload)

    def software(self) -> Software:
        """What is installed, and how much memory is free."""
        return Software(installed_versions(), free_memory_bytes())

    def storage(self, scratch: str, folders: list[str], name: str) -> Storage:
        """Look for folders, and write to one.

        Args:
            scratch: folder below the run directory that the driver has made for this check.
            folders: other folders that the node must see.
            name: name of the file that stays in ``scratch`` for the driver to see.
        """
        unseen = tuple(folder for folder in folders if not Path(folder).exists())
        if not Path(scratch).exists():
            return Storage(is_visible=False, unseen=unseen)
        try:
            return replace(_measured(Path(scratch), name), unseen=unseen)
        except OSError as error:
            return Storage(unseen=unseen, problem=error.strerror or str(error))

    def speeds(self, num_gpus: int) -> Speeds:
        """Multiply matrices on one core and, if accelerators are reserved, on each that torch sees."""
        from sftkey_dist.preflight.products import measure_speeds  # loads torch

        return measure_speeds(with_accelerators=num_gpus > 0)

    def listen(self, address: str) -> int:
        """Wait for other nodes at an address of this one, and at no other; returns the port."""
        self._listening = socket.create_server((address, 0))
        return int(self._listening.getsockname()[1])

    def all_reduce(self, group: NodeGroup, rank: int) -> float:
        """See `preflight.exchange.all_reduce`."""
        from sftkey_dist.preflight.exchange import all_reduce  # loads torch

        return all_reduce(group, rank, self._listening)


def installed_versions() -> dict[str, str]:
    """Versions that all nodes must have in common, by name."""
    major, minor, _ = platform.python_version_tuple()
    return {
        "python": f"{major}.{minor}",
        "sftkey_dist": version(),
        "code": code_digest(),
        **{name: importlib.metadata.version(name).partition("+")[0] for name in _PACKAGES},
    }


def _measured(scratch: Path, name: str) -> Storage:
    """Write a file, read it back and remove it; an empty one stays."""
    file = scratch / f"{name}.bytes"
    try:
        num_bytes, writing = _write(file)
        reading = _read(file)
    finally:
        file.unlink(missing_ok=True)
    (scratch / name).touch()
    free = os.statvfs(scratch)
    return Storage(
        free_bytes=free.f_bavail * free.f_frsize,
        written_bytes_per_second=num_bytes / writing,
        read_bytes_per_second=num_bytes / reading,
    )


def _write(file: Path) -> tuple[int, float]:
    """Write a file, less of it where the storage is slow; returns its bytes and the seconds until it is flushed."""
    block, num_bytes = os.urandom(_BLOCK_BYTES), 0  # random, because some storage compresses
    with file.open("wb", buffering=0) as stream:
        started = time.perf_counter()
        while num_bytes < _FILE_BYTES and time.perf_counter() - started < _MAX_SECONDS_OF_A_FILE:
            num_bytes += stream.write(block)
        os.fsync(stream.fileno())
        seconds = time.perf_counter() - started
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # it is read from storage, not from memory
    return num_bytes, seconds


def _read(file: Path) -> float:
    """Seconds that reading a file takes."""
    started = time.perf_counter()
    with file.open("rb", buffering=0) as stream:
        while stream.read(_BLOCK_BYTES):
            pass
    return time.perf_counter() - started
