"""Segments as the fields of one JSON object: ``{"reasoning": "…", "amount": 12.5}``.

The tokens of a segment are those of its value: the text between the quotes of a string, or the whole text of any other
value. Names, quotes, commas and braces belong to the adjacent opening or closing piece.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftkey_dist.contract.parts import ContractError, ParsedResponse, Piece, Violation
from sftkey_dist.contract.segment import Segment

_SPACE = re.compile(r"[ \t\r\n]*")
_CONTENTS = re.compile(r'((?:[^"\\]|\\.)*)("?)', re.DOTALL)
"""What an opening quote begins, and the quote that ends it."""


@dataclass(frozen=True)
class _Field:
    """A field of an object: its name, its value as it was written, and its decoded value."""

    name: str
    raw: str
    value: Any


class _NotJsonError(ValueError):
    pass


@dataclass(frozen=True)
class JsonObject:
    """Writes and reads the segments as fields of one JSON object, in order."""

    segments: tuple[Segment, ...]

    def write(self, values: Mapping[str, str]) -> list[Piece]:
        """See `Container`.

        Raises:
            ContractError: The value of a segment that is declared as JSON is not valid JSON.
        """
        present = [segment for segment in self.segments if segment.name in values]
        pieces = []
        for i, segment in enumerate(present):
            quote = '"' if segment.value == "text" else ""
            before, after = ("{" if i == 0 else ", "), ("}" if segment is present[-1] else "")
            pieces += [
                Piece(f"{segment.name}.open", f'{before}"{segment.name}": {quote}'),
                Piece(segment.name, _json_text(segment, values[segment.name])),
                Piece(f"{segment.name}.close", f"{quote}{after}"),
            ]
        return [piece for piece in pieces if piece.text]

    def read(self, text: str) -> ParsedResponse:
        """See `Container`."""
        start = _skip_space(text, 0)
        if not text.startswith("{", start):
            outside = "{" in text
            violation = Violation.TEXT_OUTSIDE if outside else Violation.NOT_JSON
            return ParsedResponse(violation=violation, detail="text before the object" if outside else "no object")
        try:
            fields, end = _fields(text, start)
        except _NotJsonError as error:
            return ParsedResponse(violation=Violation.NOT_JSON, detail=str(error))
        if text[end:].strip():
            return ParsedResponse(violation=Violation.TRAILING_TEXT, detail="text after the object")
        return self._by_name(fields)

    def search(self, text: str, name: str) -> str:
        """See `Container`: the value after the last occurrence of the field's name that is followed by a value."""
        mentions = list(re.finditer(rf'"{re.escape(name)}"\s*:\s*', text))
        if not mentions:
            return text
        values = (_value_at(text, mention.end()) for mention in reversed(mentions))
        return next((value for value in values if value.strip()), "")

    def _by_name(self, fields: list[_Field]) -> ParsedResponse:
        known, names = [segment.name for segment in self.segments], [field.name for field in fields]
        for name in names:
            if name not in known:
                return ParsedResponse(violation=Violation.UNKNOWN_FIELD, detail=f"field {name[:40]!r}")
            if names.count(name) > 1:
                return ParsedResponse(violation=Violation.DUPLICATED, detail=f"several {name!r}")
        missing = [segment.name for segment in self.segments if segment.required and segment.name not in names]
        if missing:
            return ParsedResponse(violation=Violation.MISSING, detail=f"no field {missing[0]!r}")
        if names != [name for name in known if name in names]:
            return ParsedResponse(violation=Violation.OUT_OF_ORDER, detail=", ".join(names))
        kinds = {segment.name: segment.value for segment in self.segments}
        for field in fields:
            if isinstance(field.value, str) is not (kinds[field.name] == "text"):
                wanted = "text in quotes" if kinds[field.name] == "text" else "a value that is no string"
                return ParsedResponse(violation=Violation.INVALID_VALUE, detail=f"{field.name} must be {wanted}")
        values = {f.name: f.value if kinds[f.name] == "text" else f.raw for f in fields}
        return ParsedResponse(values)


def _json_text(segment: Segment, value: str) -> str:
    if segment.value == "text":
        return json.dumps(value, ensure_ascii=False)[1:-1]
    try:
        decoded, end = _decode(value, 0)
    except _NotJsonError as error:
        raise ContractError(f"invalid_{segment.name}", f"{segment.name} is not a JSON value: {error}") from None
    if end != len(value) or isinstance(decoded, str):
        raise ContractError(f"invalid_{segment.name}", f"{segment.name} must be one JSON value, and not a string")
    return value


def _fields(text: str, start: int) -> tuple[list[_Field], int]:
    """The fields of the object that begins at ``start``, and the position after its end."""
    fields: list[_Field] = []
    place = _skip_space(text, start + 1)
    if text.startswith("}", place):
        return fields, place + 1
    while True:
        if not text.startswith('"', place):
            raise _NotJsonError(f"a field's name must follow at character {place}")
        name, place = _decode(text, place)
        place = _skip_space(text, place)
        if not text.startswith(":", place):
            raise _NotJsonError(f"':' must follow at character {place}")
        value_start = _skip_space(text, place + 1)
        value, place = _decode(text, value_start)
        fields.append(_Field(name, text[value_start:place], value))
        place = _skip_space(text, place)
        if text.startswith("}", place):
            return fields, place + 1
        if not text.startswith(",", place):
            raise _NotJsonError(f"',' or '}}' must follow at character {place}")
        place = _skip_space(text, place + 1)


def _value_at(text: str, start: int) -> str:
    """The value at a position: a string's text, any other value as it is written, or the best guess at an invalid
    value."""
    try:
        value, end = _decode(text, start)
    except _NotJsonError:
        return _invalid_string(text[start + 1 :]) if text[start : start + 1] == '"' else _until_sign(text[start:])
    return value if isinstance(value, str) else text[start:end]


def _until_sign(text: str) -> str:
    """The text up to what may end a value that is not a string."""
    return re.split(r"[,}\n]", text, maxsplit=1)[0]


def _invalid_string(text: str) -> str:
    """The contents of a string that is cut off, or that has a backslash or a line break which JSON does not allow.

    Args:
        text: what follows the opening quote.
    """
    contents, quote = _CONTENTS.match(text).groups()  # type: ignore[union-attr]  # an empty text matches too
    if not quote:  # cut off, or without its closing quote
        contents = contents.partition("\n")[0].rstrip()
        while contents.count("}") > contents.count("{") and contents.endswith("}"):
            contents = contents[:-1].rstrip()
    return str(contents.replace('\\"', '"').replace("\\\\", "\\"))


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Numbers are not converted: their value does not matter here, and Python refuses integers of more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=lambda text: None, parse_float=lambda text: None, parse_constant=_refuse_constant)


def _decode(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise _NotJsonError(str(error)) from None
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise _NotJsonError("half of a surrogate pair is no character")
    return value, end
