"""Cached SHA-256 digests of large files, because hashing the weights of a 70B model takes minutes."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from sftkey_dist.console import console
from sftkey_dist.digests import digest_file
from sftkey_dist.files import write_json_atomically

_REMEMBERED_FROM_BYTES = 64 * 2**20
_ANNOUNCED_FROM_BYTES = 4 * 2**30
_MAX_REMEMBERED = 2000
_BLOB_OF_HUB = re.compile(r"[0-9a-f]{64}")


def known_digest(file: Path) -> str:
    """Hex SHA-256 of a file's bytes. Digests of large files are cached in the user's cache until the file changes."""
    size = file.stat().st_size
    if size < _REMEMBERED_FROM_BYTES:
        return digest_file(file)
    blob = file.resolve()
    if blob.parent.name == "blobs" and _BLOB_OF_HUB.fullmatch(blob.name):  # the hub's cache names files by their digest
        return blob.name
    key, memory = _identity(file), _read_memory()
    if key not in memory:
        if size >= _ANNOUNCED_FROM_BYTES:
            console.print(
                f"{file}: reading {size / 2**30:.1f} GiB to compute its digest, which is then cached", soft_wrap=True
            )
        memory = _read_memory() | {key: digest_file(file)}
        with suppress(OSError):  # without a home folder it is computed every time
            write_json_atomically(_memory(), dict(list(memory.items())[-_MAX_REMEMBERED:]))
    return memory[key]


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _memory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "sftkey_dist" / "digests.json"


def _read_memory() -> dict[str, str]:
    with suppress(OSError, ValueError):
        memory = json.loads(_memory().read_text(encoding="utf-8"))
        if isinstance(memory, dict):
            return memory
    return {}
