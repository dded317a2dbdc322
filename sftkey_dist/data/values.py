"""From a value of a source to its text: one rule a type, whichever file, data set or node the value comes from.

- Text stays as it is, and a number of a JSON text keeps the digits that stand there: 12.50 is 12.50.
- An integer and a decimal are their digits, with the decimals of the type.
- Other floating point is the shortest digits that mean it in its own precision. A whole number has no `.0`: a column of
  integers with gaps is stored as floating point.
- A boolean is true or false, as in JSON.
- A date, a time and a timestamp are ISO 8601, a timestamp always with its time: 2024-01-31T00:00:00.
- Bytes are the text that they are in UTF-8.
- A list and a mapping are JSON, whose members follow these rules.
- NaN, infinity, other bytes and other types have no text: a row that needs one is refused.
"""

import datetime
import json
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_EXACT_BELOW = 2**53
"""Floating point holds every whole number up to here."""


class NoTextError(ValueError):
    """A value has no text; ``reason`` is short and stable, and the message goes on from a field's name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WrittenFloat(float):
    """A number of a JSON text, made from the digits that it is written with, which it keeps."""

    def __init__(self, digits: str) -> None:
        self.digits = digits


def text_of(value: Any) -> str | None:
    """The text that a person reads in the source; None where there is no value.

    Raises:
        NoTextError: the value has no text.
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
        raise NoTextError("not_utf8", f"holds bytes that are no UTF-8 text (byte {error.start})") from None


def _scalar_text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | datetime.timedelta() | uuid.UUID():
            return str(value)
        case float() | Decimal():
            return _number_text(value)
        case datetime.date() | datetime.time():  # a timestamp is a date
            return str(value.isoformat())
    raise NoTextError("no_text", f"is of type {type(value).__name__}, which has no text")


def _number_text(value: float | Decimal) -> str:
    if isinstance(value, WrittenFloat):
        return value.digits
    if math.isnan(value):
        raise NoTextError("missing_field", "is NaN, which is no value; leave the field out or write null")
    if math.isinf(value):
        raise NoTextError("not_finite", "is infinite, which is no value; leave the field out or write null")
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT_BELOW else repr(value)


def json_text(value: Any) -> str:
    """A value as JSON, whose numbers, dates and texts are those of `text_of`.

    Raises:
        NoTextError: a member has no text.
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
