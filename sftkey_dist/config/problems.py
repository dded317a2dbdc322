"""What is wrong with a configuration, in a line: by the keys that the user wrote, with the remedy."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_UNPARSED = ("int_parsing", "float_parsing", "bool_parsing")
_NO_NUMBER_OF_THE_KEY = (
    "int_type",
    "float_type",
    "int_from_float",
    "finite_number",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
)
_KINDS = {bool: "truth value", int: "number", float: "number", type(None): "missing value"}
_MISFIT = {"missing": 1, "extra_forbidden": 1, "model_type": 2, "literal_error": 1}
"""How much an error says that another alternative was meant."""
_FOR_A_SECTION = 3


def describe(error: ValidationError, files: Sequence[Path], content: Mapping[str, Any], place: str) -> str:
    """One line for all problems of a configuration.

    Args:
        error: what validation found.
        files: where the content comes from.
        content: as merged from files and overrides.
        place: what goes before every key.
    """
    source = ", ".join(map(str, files)) or "configuration"
    problems = []
    for item in _of_nearest_alternatives(error.errors(include_url=False), content):
        key = place + ".".join(map(str, _key(item, content)))
        problems.append(f"{key}: {_message(item)}" if key else _message(item))
    return f"{source}: " + "; ".join(dict.fromkeys(problems))


def _message(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown key; remove it or check its spelling"
    if item["type"] == "missing":
        return "required key is missing"
    if item["type"] == "string_type":
        return _not_text(item["input"])
    if item["type"] in _UNPARSED + _NO_NUMBER_OF_THE_KEY:
        return f"{item['msg']}, got {item['input']!r}"
    return item["msg"].removeprefix("Value error, ")


def _not_text(value: Any) -> str:
    """The value as YAML writes it, and the remedy."""
    if isinstance(value, dict | list):
        return f"expected a text, found {'keys and values' if isinstance(value, dict) else 'a list'}"
    written = json.dumps(value, default=str)
    return f'{written} is read as a {_KINDS.get(type(value), "value")}, not as text; put it in quotes: "{written}"'


def _of_nearest_alternatives(errors: Sequence[ErrorDetails], content: Mapping[str, Any]) -> Iterator[ErrorDetails]:
    """Where a value may be one of several things, the errors of the one that it is most like.

    Validation reports those of all, and below the place names the alternative as no user knows it.
    """
    misfits: dict[tuple[int | str, ...], dict[int | str, int]] = {}
    for item in errors:
        place, alternative = _alternative(item, content)
        if alternative is not None:
            of_place = misfits.setdefault(place, {})
            of_place[alternative] = of_place.get(alternative, 0) + _misfit(item)
    for item in errors:
        place, alternative = _alternative(item, content)
        nearest = min(misfits[place], key=misfits[place].__getitem__) if alternative is not None else None
        if alternative == nearest and not _is_consequence(item, errors):
            yield item


def _is_consequence(item: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list is too short because parts of it are wrong."""
    length = len(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > length and other["loc"][:length] == item["loc"] for other in errors
    )


def _misfit(item: ErrorDetails) -> int:
    if item["type"] == "literal_error" and not isinstance(item["input"], str):
        return _FOR_A_SECTION
    return _MISFIT.get(item["type"], 0)


def _alternative(item: ErrorDetails, content: Any) -> tuple[tuple[int | str, ...], int | str | None]:
    """The place in which a value has alternatives, and the one that an error is of; None where it has none."""
    for index, part in enumerate(item["loc"]):
        is_last = index == len(item["loc"]) - 1
        if isinstance(part, int):
            content = content[part] if isinstance(content, list | tuple) and part < len(content) else content
        elif isinstance(content, Mapping) and part in content:
            content = content[part]
        elif isinstance(content, Mapping) and item["type"] == "missing" and is_last:
            return (), None
        else:
            return item["loc"][:index], part
    return (), None


def _key(item: ErrorDetails, content: Any) -> Iterator[int | str]:
    """The key as the user wrote it, without the index of a single source and the names of alternatives."""
    for part in item["loc"]:
        if isinstance(part, int) and isinstance(content, Mapping):
            continue
        if isinstance(part, int):
            yield part
            content = content[part] if isinstance(content, list | tuple) and part < len(content) else None
        elif isinstance(content, Mapping) and part in content:
            yield part
            content = content[part]
    if item["type"] == "missing":
        yield item["loc"][-1]
