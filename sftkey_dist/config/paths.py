"""Settings that are locations: `~`, `$NAME` and `${NAME}` are expanded as in a shell."""

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
_INSTEAD = "put credentials into the environment, or into the client's own credential files"


def expanded(text: str) -> str:
    """Expand the home folder and the variables of a path, an id or a URI.

    Raises:
        ValueError: A variable is not set, is empty or looks like a secret; the home folder does not exist; or the text
            contains credentials or control characters.
    """
    require_no_credentials(text, _INSTEAD)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError(f"{text!r} contains a control character")
    prefix = _OF_FILES.match(text)
    start = prefix.end() if prefix else 0
    location = text[:start] + _with_home(_VARIABLE.sub(_value, text[start:]))
    require_no_credentials(location, _INSTEAD)  # which a variable of any name may contain
    return location


def local_path(value: Any) -> Any:
    """Expand the path of a folder or a file as `expanded` does. A value that is not text is left to type validation.

    Raises:
        ValueError: As `expanded`, or the text is a URI.
    """
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value)
    if not text.strip():
        raise ValueError("is empty; give a path")
    if _URI.match(text):
        raise ValueError("must be a path on a file system, not a URI")
    return expanded(text)


LocalPath = Annotated[Path, BeforeValidator(local_path)]
"""A file or a folder."""

Location = Annotated[str, AfterValidator(expanded)]
"""A path, an id, an address or a URI."""


def _with_home(text: str) -> str:
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError(f"there is no home folder {text.partition('/')[0]}; write ./~ for a name that begins with ~")
    return path


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    if not _NAME.fullmatch(name):
        raise ValueError(f"{match[0]}: of the expansions of a shell, only ~, $NAME and ${{NAME}} are supported")
    if is_named_like_a_secret(name):
        raise ValueError(f"{match[0]} looks like a secret, and paths are written to files in plain text")
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{match[0]}: the environment variable {name} is not set or is empty")
    return value


def is_local_model(path: str) -> bool:
    """Whether a model's path is a folder and not an id on the hub; an existing folder is taken before an id."""
    return path.startswith((".", "/", "~")) or Path(path).exists()
