"""Reads text and JSON files, with errors that name the file and say what to do."""

import json
import stat
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sftkey_dist.errors import DataError

RESTORE_OR_REMOVE = "restore it from a copy, or remove its folder, which the same command then creates again"
_MAX_CHARACTERS = 200
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def read_json(path: Path, remedy: str = RESTORE_OR_REMOVE) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: path of the file.
        remedy: what to do about a damaged file, for the message.

    Raises:
        DataError: The file is missing, empty, truncated or damaged, or contains something else than an object.
    """
    text = read_text(path, remedy)
    if not text.strip("\0 \t\r\n"):
        raise DataError(f"{path}: {'empty' if not text else 'contains only NULs or blanks'}; {remedy}")
    try:
        return _OBJECT.validate_python(parse_json(text))
    except ValueError as error:
        raise DataError(f"{path}: {problem_of(error)}; {remedy}") from None


def read_text(path: Path, remedy: str = RESTORE_OR_REMOVE) -> str:
    """Read the UTF-8 text of a file.

    Raises:
        DataError: The file is missing, is not a regular file, or is not UTF-8 text.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for its writer
            raise DataError(f"{path}: not a regular file; {remedy}")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); {remedy}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None


def parse_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: It is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def problem_of(error: ValueError) -> str:
    """The problem of a file's content, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place + ': ' if place else ''}{first['msg']}"[:_MAX_CHARACTERS]
    return f"damaged or cut off ({error})"[:_MAX_CHARACTERS]
