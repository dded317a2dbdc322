"""Converts values of a source to text, by one rule per type, for every kind of file, data set and node.

- Text is kept as it is, and a number in a JSON text keeps its digits: 12.50 is 12.50.
- Integers and decimals are written with their digits; a decimal keeps the decimals of its type.
- Other floating-point numbers are written with the fewest digits that identify them in their own precision. An integral
  value has no `.0`, because a column of integers with missing values is stored as floating point.
- Booleans are `true` or `false`, as in JSON.
- Dates, times and timestamps are in ISO 8601, timestamps always with the time: 2024-01-31T00:00:00.
- Bytes are decoded as UTF-8.
- Lists and mappings are written as JSON, whose members follow these rules.
- NaN, infinity, other bytes and other types have no text. A row that needs one is refused.
"""

import datetime
import json
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal

_EXACT_BELOW = 2**53
"""Floating point represents every integer below this exactly."""


class NoTextError(ValueError):
    """Raised if a value has no text; ``reason`` is short and stable, and the message continues after a field's name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WrittenFloat(float):
    """A number from a JSON text that also keeps the digits with which it was written."""

    def __init__(self, digits: str) -> None:
        self.digits = digits


def text_of(value: object) -> str | None:
    """The text of a value, as a person reads it in the source; None if there is no value.

    Raises:
        NoTextError: The value has no text.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _decoded(value)
    if not isinstance(value, Mapping | list | tuple):
        return _scalar_text(value)
    try:
        return json_text(value)
    except RecursionError:
        raise NoTextError("too_deep", "is nested too deeply") from None


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoTextError("not_utf8", f"contains bytes that are not UTF-8 text (byte {error.start})") from None


def _scalar_text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | datetime.timedelta() | uuid.UUID():
            return str(value)
        case float() | Decimal():
            return _number_text(value)
        case datetime.date() | datetime.time():  # datetime is a subclass of date
            return str(value.isoformat())
    raise NoTextError("no_text", f"is of type {type(value).__name__}, which has no text")


def _number_text(value: float | Decimal) -> str:
    if isinstance(value, WrittenFloat):
        return value.digits
    if math.isnan(value):
        raise NoTextError("missing_field", "is NaN, which is not a value; leave the field out or write null")
    if math.isinf(value):
        raise NoTextError("not_finite", "is infinite, which is not a value; leave the field out or write null")
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT_BELOW else repr(value)


def json_text(value: object) -> str:
    """A value as JSON, with numbers, dates and texts as in `text_of`.

    Raises:
        NoTextError: A member has no text.
    """
    match value:
        case None:
            return "null"
        case Mapping():
            members = [f"{json.dumps(key, ensure_ascii=False)}: {json_text(item)}" for key, item in value.items()]
            return f"{{{', '.join(members)}}}"
        case list() | tuple():
            return f"[{', '.join([json_text(item) for item in value])}]"
        case bool() | int() | float() | Decimal():
            return _scalar_text(value)
    return json.dumps(text_of(value), ensure_ascii=False)
