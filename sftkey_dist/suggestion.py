"""The known name that an unknown one may have meant, for messages."""

import difflib
from collections.abc import Iterable


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``; None if none is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)
