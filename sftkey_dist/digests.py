"""Digests of files and of values."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

_CHUNK_BYTES = 8 * 2**20


def digest_json(content: object) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path, on_bytes: Callable[[int], None] = lambda number: None) -> str:
    """Hex SHA-256 of a file's bytes; ``on_bytes`` is called with the number of bytes of every chunk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, _CHUNK_BYTES), b""):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


class FileNote(BaseModel):
    """Size and digest of a file, read back after it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    """Size of the file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of its content."""

    @classmethod
    def of(cls, file: Path, on_bytes: Callable[[int], None] = lambda number: None) -> Self:
        """Read a file back; ``on_bytes`` as in `digest_file`."""
        return cls(bytes=file.stat().st_size, sha256=digest_file(file, on_bytes))
