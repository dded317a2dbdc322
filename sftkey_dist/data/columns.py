"""Reading columns of a raw row, with an error that says what is wrong with which one."""

import json
import re
from collections.abc import Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class RowError(ValueError):
    """A raw row is malformed; ``reason`` is short and stable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def text(row: Mapping[str, Any], column: str) -> str:
    """A column that must hold text."""
    value = find(row, column)
    if not isinstance(value, str):
        raise RowError("missing_field", f"field {column!r} must be text, found {_kind(value)}{_known(row, column)}")
    if not value.strip():
        raise RowError("empty_field", f"field {column!r} is empty")
    return _unicode(value, column)


def optional_text(row: Mapping[str, Any], column: str) -> str:
    """A column that may be absent or hold any JSON value, as text; "" when there is none.

    Numbers and lists are written as JSON: labels often come as integers.
    """
    value = find(row, column)
    if value is None:
        return ""
    return _unicode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), column)


def required_text(row: Mapping[str, Any], column: str) -> str:
    """`optional_text` of a column that must be there."""
    if find(row, column) is None:
        raise RowError("missing_field", f"field {column!r} is missing{_known(row, column)}")
    return optional_text(row, column)


def filled(row: Mapping[str, Any], template: str) -> str:
    """A column's text, or a text whose ``{column}`` are replaced; a list puts one item on a line."""
    if not _PLACEHOLDER.search(template):
        return text(row, template)
    return _PLACEHOLDER.sub(lambda match: _lines(row, match.group(1)), template)


def items(row: Mapping[str, Any], column: str) -> list[Any]:
    """A column that must hold a list."""
    value = find(row, column)
    if not isinstance(value, list):
        raise RowError("missing_field", f"field {column!r} must be a list, found {_kind(value)}{_known(row, column)}")
    return value


def find(row: Mapping[str, Any], column: str) -> Any:
    """A column's value, ``a.b`` being field b of column a; None when there is none."""
    if column in row or "." not in column:
        return row.get(column)
    outer, _, inner = column.partition(".")
    value = row.get(outer)
    return find(value, inner) if isinstance(value, Mapping) else None


def _lines(row: Mapping[str, Any], column: str) -> str:
    value = find(row, column)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return _unicode("\n".join(value), column)
    return required_text(row, column)


def _unicode(value: str, column: str) -> str:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise RowError("not_unicode", f"field {column!r} holds half of a surrogate pair, which is no character")
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _known(row: Mapping[str, Any], column: str) -> str:
    return "" if column in row else f"; the row has {', '.join(map(repr, list(row)[:12])) or 'no fields'}"
