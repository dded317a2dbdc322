"""Says what is wrong with one value of a configuration, in words that need no knowledge of Python."""

import json
import re
from collections.abc import Sequence

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sftkey_dist.config.keys import names_at, sections_at
from sftkey_dist.suggestion import closest_name

_ONE_OF = ("literal_error", "enum")
_SECTIONS = ("dict_type", "model_type", "model_attributes_type")
_LISTS = ("tuple_type", "list_type")
_TRUTH_VALUES = ("bool_parsing", "bool_type")
_DATES = ("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact")
_NUMBERS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
_KINDS = {bool: "truth value", int: "number", float: "number", type(None): "missing value"}
_MAX_CHARACTERS = 60
_WHOLE_LIST = "an item of a list cannot be changed by itself; give the whole list"


def message_of(item: ErrorDetails, section: type[BaseModel], path: Sequence[int | str]) -> str:
    """What is wrong, what was found, and what to do.

    Args:
        item: a problem that validation found.
        section: the section that was validated.
        path: the key, as the user wrote it.
    """
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return _unknown_key(section, path, value)
    if kind == "missing":
        return "required key is missing" if isinstance(path[-1], str) else "the list is too short"
    if kind == "string_type":
        return _not_text(value)
    if kind in _ONE_OF:
        return _none_of(item["ctx"]["expected"], value, section, path)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {item['ctx'][name]:.12g}, got {value!r}"
    return _of_another_kind(item) or item["msg"].removeprefix("Value error, ")


def is_item_of_list(key: int | str) -> bool:
    """Whether a key of a mapping can only be meant as the number of an item of a list."""
    return isinstance(key, str) and key.isdecimal()


def _of_another_kind(item: ErrorDetails) -> str | None:
    kind, value = item["type"], item["input"]
    if kind in _SECTIONS:
        return f"expected keys and values, found {kind_of(value)}"
    if kind in _LISTS and isinstance(value, dict) and value and all(map(is_item_of_list, value)):
        return _WHOLE_LIST
    if kind in _LISTS:
        return f"expected a list, such as [a, b], found {kind_of(value)}"
    if kind in _NUMBERS:
        return f"expected {_NUMBERS[kind]}, found {_shown(value)}"
    if kind in _TRUTH_VALUES:
        return f"expected true or false, found {_shown(value)}"
    if kind in _DATES:
        return f"expected a date, such as 2026-01-31, found {_shown(value)}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} does not have the form {item['ctx']['pattern']}"
    if kind in ("too_short", "too_long"):
        few, bound = kind == "too_short", item["ctx"]["min_length" if kind == "too_short" else "max_length"]
        return f"expected at {'least' if few else 'most'} {bound} item{'s'[: bound != 1]}, found {len(value)}"
    return None


def _unknown_key(section: type[BaseModel], path: Sequence[int | str], value: object) -> str:
    if is_item_of_list(path[-1]):
        further = next(iter(value), "") if isinstance(value, dict) else ""
        alone = ".".join(map(str, [*path[:-1], *([further] if further else [])]))
        return f"{_WHOLE_LIST}, or {alone} without a number if there is only one"
    close = closest_name(str(path[-1]), names_at(section, _names(path[:-1])))
    return f"unknown key; did you mean {close}?" if close else "unknown key; remove it or check its spelling"


def _none_of(expected: str, value: object, section: type[BaseModel], path: Sequence[int | str]) -> str:
    """A message for a value that is none of a few texts, or a section in their place."""
    known = re.findall(r"'([^']*)'", expected)
    close = closest_name(value, known) if isinstance(value, str) else None
    sections = [" and ".join(_required(each)) for each in sections_at(section, _names(path))]
    expected = _either(known) + (f", or keys and values with {_either(sections)}" if sections else "")
    if close:
        return f"expected {expected}, found {_shown(value)}; did you mean {close}?"
    return f"expected {expected}, found {_shown(value)}"


def _either(texts: Sequence[str]) -> str:
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last


def _required(section: type[BaseModel]) -> list[str]:
    return [name for name, field in section.model_fields.items() if field.is_required()]


def _names(path: Sequence[int | str]) -> list[str]:
    return [part for part in path if isinstance(part, str)]


def _not_text(value: object) -> str:
    """A message that shows the value as YAML writes it, with the remedy."""
    if isinstance(value, dict | list):
        return f"expected a text, found {kind_of(value)}"
    written = json.dumps(value, default=str)
    return f'{written} is read as a {_KINDS.get(type(value), "value")}, not as text; put it in quotes: "{written}"'


def kind_of(value: object) -> str:
    """The kind of a value. The value itself may be an address with a password, and is not shown."""
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    return "a text" if isinstance(value, str) else f"a {_KINDS.get(type(value), 'value')}"


def _shown(value: object) -> str:
    """A value that is short, and otherwise its kind."""
    written = repr(value) if isinstance(value, str | float) else json.dumps(value, default=str)
    return written if len(written) <= _MAX_CHARACTERS and not isinstance(value, dict | list) else kind_of(value)
