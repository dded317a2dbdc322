"""The URIs of SQLite files, in which SQLAlchemy decodes percent signs and reads options after a ``?``."""

from pathlib import Path
from urllib.parse import unquote

_SCHEME = "sqlite:///"
_NO_FILES = ("", ":memory:")
_URI_OF_SQLITE = "file:"
"""Begins a URI of SQLite's own, with options of its own."""


def sqlite_uri(file: Path) -> str:
    """The URI of a SQLite file."""
    return _SCHEME + str(file).replace("%", "%25").replace("?", "%3F")


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite URI; None for other stores, and for a database in memory."""
    name = unquote(uri.removeprefix(_SCHEME).partition("?")[0])
    if not uri.startswith(_SCHEME) or name in _NO_FILES or name.startswith(_URI_OF_SQLITE):
        return None
    return Path(name)
