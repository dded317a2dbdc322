"""Settings that say where something lies: `~`, `$NAME` and `${NAME}` stand for what a shell would put there."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from sftkey_dist.config.secrets import is_named_like_a_secret, require_no_credentials

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_OF_FILES = re.compile(r"^(sqlite:///|file://)(?=~)")
_INSTEAD = "credentials belong into the environment, or into the client's own files"


def expanded(text: str) -> str:
    """A path, an id or a URI with its home folder and variables filled in.

    Raises:
        ValueError: a variable is not set, is empty or looks like a secret; there is no such home folder; or the text
            holds credentials or characters that cannot be printed in a line.
    """
    require_no_credentials(text, _INSTEAD)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError(f"{text!r} holds a control character")
    prefix = _OF_FILES.match(text)
    start = prefix.end() if prefix else 0
    return text[:start] + _with_home(_VARIABLE.sub(_value, text[start:]))


def local_path(value: Any) -> Any:
    """`expanded` of a folder or a file on a file system; what is no text is left for its type to refuse.

    Raises:
        ValueError: as `expanded`, or it is a URI.
    """
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value)
    if _URI.match(text):
        raise ValueError("a folder on a file system is needed, not a URI")
    return expanded(text)


LocalPath = Annotated[Path, BeforeValidator(local_path)]
"""A file or a folder."""

Location = Annotated[str, AfterValidator(expanded)]
"""A path, or an id, an address or a URI in its place."""


def _with_home(text: str) -> str:
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError(f"there is no home folder {text.partition('/')[0]}; write ./~ for a name that begins so")
    return path


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    if not _NAME.fullmatch(name):
        raise ValueError(f"{match[0]}: of what a shell puts in place, ~, $NAME and ${{NAME}} alone are known here")
    if is_named_like_a_secret(name):
        raise ValueError(f"{match[0]} looks like a secret, and a path is written to files")
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{match[0]}: the environment variable {name} is not set, or empty")
    return value
