"""Writing files whole or not at all, and naming content by digest."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def text_written_whole(path: Path) -> Iterator[IO[str]]:
    """Yield a file that takes the place of ``path`` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file by one with this text; a reader sees the old file or the new one."""
    with text_written_whole(path) as file:
        file.write(text)


def write_json_atomically(path: Path, content: Any) -> None:
    """`write_text_atomically` for JSON."""
    write_text_atomically(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: what is no finite number is null, as it is not known."""
    text = json.dumps(_known(content), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair can only be escaped


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
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(scratch, 0o777 & ~_umask())
        yield scratch
        try:
            os.replace(scratch, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def digest_json(content: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _known(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_known(value) for value in content]
    return content


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
