"""Validates a text with a JSON schema.

The schema comes from the user, but the text is untrusted, so its size and the work of validation are limited:
`jsonschema` compares the items of an array in pairs, and a schema that refers to itself in several places doubles the
work with every level of the text.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import jsonschema

from sftkey_dist.patterns import SECONDS, compile_pattern

_LONGEST_CHARACTERS = 200_000
_MAX_STEPS = 10_000
"""Maximum number of applications of a keyword to a value; a text that needs more is refused."""

NO_STRING = ["object", "array", "number", "boolean", "null"]
"""The types of JSON values that are no strings."""

Schema = Mapping[str, Any] | bool
Errors = Iterator[jsonschema.ValidationError]
Keyword = Callable[[object, object, object, object], Errors | None]

_steps_left: ContextVar[int] = ContextVar("steps_left", default=_MAX_STEPS)


class _TooMuchWorkError(ValueError):
    pass


class _Validates(Protocol):
    """What the keywords below use of a validator of `jsonschema`."""

    def is_type(self, instance: object, type: str) -> bool: ...

    def descend(
        self, instance: object, schema: Schema, path: str | None = None, schema_path: str | None = None
    ) -> Errors: ...


def schema_problem(text: str, schema: dict[str, Any]) -> str | None:
    """Why a text is not JSON that the schema accepts; None if it is."""
    if len(text) > _LONGEST_CHARACTERS:
        return f"more than {_LONGEST_CHARACTERS:,} characters, which is too much to be checked"
    _steps_left.set(_MAX_STEPS)
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        error = jsonschema.exceptions.best_match(_Validator(schema).iter_errors(value))
    except _TooMuchWorkError as failure:
        return str(failure)
    except (ValueError, RecursionError) as failure:
        return f"not JSON: {failure}"
    except OverflowError:  # `multipleOf` divides
        return f"{text[:40]!r} has a number that is too large to be checked"
    return None if error is None else str(error.message)[:200]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is too large a number")
    return number


def _is_found(pattern: str, text: str) -> bool:
    try:
        return compile_pattern(pattern).search(text, timeout=SECONDS) is not None
    except TimeoutError:
        raise _TooMuchWorkError(f"{text[:40]!r} takes too long to be compared with {pattern!r}") from None


def _pattern(validator: _Validates, pattern: str, value: Any, schema: object) -> Errors:
    if validator.is_type(value, "string") and not _is_found(pattern, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: _Validates, patterns: Mapping[str, Schema], value: Any, schema: object) -> Errors:
    for pattern, inner in patterns.items() if validator.is_type(value, "object") else ():
        for name in value:
            if _is_found(pattern, name):
                yield from validator.descend(value[name], inner, path=name, schema_path=pattern)


def _additional_properties(validator: _Validates, allowed: Schema, value: Any, schema: Mapping[str, Any]) -> Errors:
    if not validator.is_type(value, "object"):
        return
    patterns = schema.get("patternProperties", {})
    known = schema.get("properties", {})
    others = [name for name in value if name not in known and not any(_is_found(each, name) for each in patterns)]
    if validator.is_type(allowed, "object"):
        for name in others:
            yield from validator.descend(value[name], allowed, path=name)
    elif not allowed and others:
        yield jsonschema.ValidationError(f"additional properties are not allowed: {', '.join(map(repr, others[:5]))}")


def _unique_items(validator: _Validates, unique: bool, value: Any, schema: object) -> Errors:
    if unique and validator.is_type(value, "array") and len(set(map(_comparable, value))) < len(value):
        yield jsonschema.ValidationError("an item of the array comes twice")


def _comparable(value: object) -> Hashable:
    """A hashable value with the equality of JSON values: 1 equals 1.0 but not true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _comparable(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_comparable, value))
    return type(value) is bool, value


def _counted(keyword: Keyword) -> Keyword:
    def apply(validator: object, argument: object, value: object, schema: object) -> Errors:
        left = _steps_left.get()
        if left <= 0:
            raise _TooMuchWorkError(f"more than {_MAX_STEPS:,} steps to check it")
        _steps_left.set(left - 1)
        yield from keyword(validator, argument, value, schema) or ()

    return apply


_BOUNDED = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_Validator: Any = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {name: _counted(keyword) for name, keyword in {**jsonschema.Draft202012Validator.VALIDATORS, **_BOUNDED}.items()},
)
