"""Reads columns of a raw row, with errors that name the column and the problem."""

import json
import math
from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue, TypeAdapter

from sftkey_dist.config.prompt import is_template_argument
from sftkey_dist.config.section import MAX_LOSS_WEIGHT, MIN_LOSS_WEIGHT
from sftkey_dist.data.adapters.template import fields_of, fill
from sftkey_dist.data.adapters.values import NoTextError, text_of
from sftkey_dist.data.example import ARGUMENTS_COLUMN
from sftkey_dist.suggestion import closest_name

_JSON_MAPPING = TypeAdapter(dict[str, JsonValue])


class RowError(ValueError):
    """Raised for a malformed raw row; ``reason`` is a short, stable name for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def text(row: Mapping[str, object], column: str) -> str:
    """The text of a column that must contain text."""
    value = find(row, column)
    if isinstance(value, bytes):
        value = _text_of(value, column)
    if not isinstance(value, str):
        raise RowError("missing_field", f"field {column!r} must be text, found {_kind(value)}{_known(row, column)}")
    if not value.strip():
        raise RowError("empty_field", f"field {column!r} is empty")
    return require_unicode(value, f"field {column!r}")


def optional_text(row: Mapping[str, object], column: str) -> str:
    """The text (see `values`) of a column that may be missing or contain any value; "" if there is none."""
    return _text_of(find(row, column), column) or ""


def required_text(row: Mapping[str, object], column: str) -> str:
    """The text (see `values`) of a column that must be present."""
    found = _text_of(find(row, column), column)
    if found is None:
        raise RowError("missing_field", f"field {column!r} is missing{_known(row, column)}")
    return found


def filled(row: Mapping[str, object], template: str) -> str:
    """The text of a column, or a prompt template that is filled in (see `template`), with one line per item of a
    list. A row in which every column of the template is empty has no prompt."""
    fields = fields_of(template)
    if not fields:
        return text(row, template)

    def has(column: str) -> bool:
        return find(row, column) is not None

    if not any(field.is_name or has(field.name) for field in fields):
        raise RowError("missing_field", f"the prompt template {template[:60]!r} names no field{_known(row, template)}")
    values: dict[str, str] = {}

    def value_of(column: str) -> str:
        return values.setdefault(column, _lines(row, column))

    filled_in = fill(template, has, value_of)
    if not any(map(str.strip, values.values())):
        names = ", ".join(map(repr, values))
        raise RowError("empty_field", f"all fields of the prompt template are empty: {names}")
    return filled_in


def items(row: Mapping[str, object], column: str) -> list[object]:
    """The items of a column that must contain a list."""
    value = find(row, column)
    if not isinstance(value, list):
        raise RowError("missing_field", f"field {column!r} must be a list, found {_kind(value)}{_known(row, column)}")
    return value


def texts(row: Mapping[str, object], column: str) -> list[str]:
    """The texts of the items of a column that must contain a list."""
    found = [_text_of(item, column) for item in items(row, column)]
    if None in found:
        raise RowError("missing_field", f"field {column!r} has an item without a value")
    return cast(list[str], found)


def loss_weight(row: Mapping[str, object], column: str) -> float:
    """The number of a column, or the number that its text is: 0, or from 1e-6 to 1,000,000."""
    value = find(row, column)
    if value is None:
        raise RowError("missing_field", f"field {column!r} is missing{_known(row, column)}")
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if number and not MIN_LOSS_WEIGHT <= number <= MAX_LOSS_WEIGHT:
        raise RowError(
            "invalid_loss_weight",
            f"field {column!r} must be 0 or a number from {MIN_LOSS_WEIGHT:g} to {MAX_LOSS_WEIGHT:,}, found "
            f"{str(value)[:40]!r}",
        )
    return number


def template_arguments(row: Mapping[str, object]) -> dict[str, object]:
    """The row's own arguments of the chat template, as a mapping or as its JSON text.

    A column of structures, as in Parquet files, gives every row all fields; those without a value are left out.
    """
    value = row.get(ARGUMENTS_COLUMN)
    try:
        value = json.loads(value) if isinstance(value, str) and value.strip() else value or {}
        found = _JSON_MAPPING.validate_python(value, strict=True)
    except (ValueError, RecursionError):  # of JSON, of numbers that are too long, of nesting, or of validation
        raise RowError(
            "invalid_arguments", f"field {ARGUMENTS_COLUMN!r} must be a mapping of JSON values, found {_kind(value)}"
        ) from None
    if reserved := [name for name in found if not is_template_argument(name)]:
        raise RowError(
            "invalid_arguments", f"field {ARGUMENTS_COLUMN!r} must not set {reserved[0]!r}, which every prompt sets"
        )
    require_unicode(json.dumps(found, ensure_ascii=False), f"field {ARGUMENTS_COLUMN!r}")
    return {name: item for name, item in found.items() if item is not None}


def require_unicode(value: str, what: str) -> str:
    """The text itself.

    Raises:
        RowError: It has half of a pair of surrogates; the message begins with ``what``.
    """
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise RowError("not_unicode", f"{what} contains a lone surrogate, which is not a character")
    return value


def find(row: Mapping[str, object], column: str) -> object:
    """The value of a column, where ``a.b`` is the field b of column a; None if there is none."""
    if column in row or "." not in column:
        return row.get(column)
    outer, _, inner = column.partition(".")
    value = row.get(outer)
    return find(value, inner) if isinstance(value, Mapping) else None


def _lines(row: Mapping[str, object], column: str) -> str:
    value = find(row, column)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return require_unicode("\n".join(value), f"field {column!r}")
    if value is None:
        raise RowError(
            "missing_field",
            f"field {column!r} of the prompt template is missing{_known(row, column)}; a text in braces that is not "
            f"a field must be written {{{{{column}}}}}",
        )
    return required_text(row, column)


def _text_of(value: object, column: str) -> str | None:
    try:
        found = text_of(value)
    except NoTextError as error:
        raise RowError(error.reason, f"field {column!r} {error}") from None
    return None if found is None else require_unicode(found, f"field {column!r}")


def _kind(value: object) -> str:
    return "nothing" if value is None else "float" if isinstance(value, float) else type(value).__name__


def _known(row: Mapping[str, object], column: str) -> str:
    if column in row:
        return ""
    (only, *others) = [*row, ""]
    if "|" in only and others == [""]:
        return f"; the header {only!r} is one column; put a line sep=| before it"
    close = closest_name(column, row)
    meant = f"; did you mean {close!r}?" if close else ";"
    return f"{meant} the row has {', '.join(map(repr, list(row)[:12])) or 'no fields'}"
