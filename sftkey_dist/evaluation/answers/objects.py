"""JSON values. Numbers are compared as numbers, and texts as by the check `exact`."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal

from sftkey_dist.evaluation.answers.text import normalized

_LONGEST_NUMBER_CHARACTERS = 400
_LONGEST_CHARACTERS, _DEEPEST = 200_000, 100
MISSING = object()
"""A missing value, which is not the same as null."""


def read_object(text: str) -> object:
    """The JSON value of a text; `MISSING` if it is not JSON, is too long or too deep, or repeats a key."""
    if len(text) > _LONGEST_CHARACTERS:
        return MISSING
    try:
        _refuse_depth(text)
        return json.loads(
            _unfenced(text),
            parse_float=_decimal,
            parse_int=_decimal,
            parse_constant=_refuse,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError, ArithmeticError):
        return MISSING


def field_of(value: object, path: str) -> object:
    """The value at a path such as ``a.b``; `MISSING` if there is none."""
    for name in path.split(".") if path else ():
        value = value.get(name, MISSING) if isinstance(value, Mapping) else MISSING
    return value


def same_object(one: object, other: object) -> bool:
    """Whether two values are equal. The order of lists matters, the order of the fields of an object does not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_object(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_object, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return normalized(one) == normalized(other)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)  # otherwise true would equal 1


def _unfenced(text: str) -> str:
    """The text without a fence around it."""
    inner = text.strip()
    if len(inner) < 6 or not (inner.startswith("```") and inner.endswith("```")):
        return text
    language, line_end, body = inner[3:-3].partition("\n")
    return body if line_end and language.strip() in ("", "json") else text


def _refuse_depth(text: str) -> None:
    depth = 0
    for mark in re.findall(r"[\[{\]}]", text):
        depth += 1 if mark in "[{" else -1
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")


def _decimal(text: str) -> Decimal:
    if len(text) > _LONGEST_NUMBER_CHARACTERS:
        raise ValueError
    return Decimal(text)


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)
