"""Parsing of a judge's reply, one small JSON object: strict about its content, lenient about its syntax."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_OPENS_THINKING = re.compile(r"\s*(?:<(?:think|thinking|thought|reasoning|seed:think)>|\[THINK\]|◁think▷)")
_CLOSES_THINKING = re.compile(
    r"</(?:think|thinking|thought|reasoning|seed:think)>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>"
)
_MAX_ENDS_OF_THINKING = 8
_END_TOKEN = re.compile(r"(?:<\|[^<>|\s]{1,40}\|>|</s>|<end_of_turn>|<eos>)$")
_LONGEST_END_TOKEN = 50
_BETWEEN_OBJECTS = re.compile(r"(?:\s|`+\s*(?:json\w*|python)?)*", re.IGNORECASE)
_VERDICTS, _RATINGS = ("correct", "incorrect"), range(1, 6)
_LONGEST_REASON = 300

_BACKSLASH = re.compile(r'\\(["\'\\/]|n|u[0-9a-fA-F]{4}|[rt](?![A-Za-z]))|\\')
"""A JSON escape, or a LaTeX backslash: `\\frac` in a reason is not a form feed, and `\\text` is not a tab."""
_STRING = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_FIELD = re.compile(rf"\s*({_STRING})\s*:\s*({_STRING}|[^\s,{{}}\[\]\"']+)\s*(,\s*)?", re.DOTALL)


@dataclass(frozen=True)
class Ruling:
    """What one judge said: ``correct`` or ``incorrect``, or a rating from ``1`` to ``5``, with its reason."""

    value: str
    reason: str


Reader = Callable[[str], Ruling | None]


def read_verdict(reply: str) -> Ruling | None:
    """The ruling in ``{"verdict": "correct" | "incorrect", "reason": …}``; None for anything else."""
    return _only_ruling(reply, "verdict", _verdict)


def read_rating(reply: str) -> Ruling | None:
    """The ruling in ``{"rating": 1 to 5, "reason": …}``; None for anything else."""
    return _only_ruling(reply, "rating", _rating)


def why_unreadable(reply: str) -> str:
    """The name of the failure for a reply that contains no ruling."""
    if not reply.strip():
        return "empty_reply"
    *_, end = (0, *(match.end() for match in _CLOSES_THINKING.finditer(reply)))
    is_thinking = not reply[end:].strip() or (end == 0 and _OPENS_THINKING.match(reply))
    return "thinking_only" if is_thinking else "unreadable_reply"


def possible_replies(reader: Reader) -> list[str]:
    """All replies, without a reason, that a reader accepts."""
    key, values = ("verdict", _VERDICTS) if reader is read_verdict else ("rating", _RATINGS)
    return [json.dumps({key: value}) for value in values]


def _only_ruling(reply: str, key: str, value_of: Callable[[object], str | None]) -> Ruling | None:
    """The ruling on which all candidates for the final reply agree. Thinking, or a reason, may quote a verdict."""
    found = [ruling for text in _after_thinking(reply) if (ruling := _ruling(text, key, value_of)) is not None]
    return found[-1] if len({ruling.value for ruling in found}) == 1 else None


def _after_thinking(reply: str) -> list[str]:
    """The texts after each end of thinking: the whole reply without thinking, nothing if the thinking never ends.

    If the chat template opens the thinking, the reply contains only its end.
    """
    starts = [match.end() for match in _CLOSES_THINKING.finditer(reply)][-_MAX_ENDS_OF_THINKING:]
    if not _OPENS_THINKING.match(reply):
        starts.append(0)
    return [_without_end_tokens(reply[start:]) for start in starts]


def _without_end_tokens(text: str) -> str:
    """The text without trailing special tokens, which some servers keep."""
    text = text.strip()
    while match := _END_TOKEN.search(text, max(0, len(text) - _LONGEST_END_TOKEN)):
        text = text[: match.start()].rstrip()
    return text


def _ruling(text: str, key: str, value_of: Callable[[object], str | None]) -> Ruling | None:
    """The ruling of a text that consists of JSON objects which all agree. A verdict in other text may be a quote."""
    rulings = []
    for fields in _objects(text):
        if fields is None or not set(fields) <= {key, "reason"}:
            return None
        if key in fields:
            value = value_of(fields[key])
            if value is None:
                return None
            rulings.append(Ruling(value, str(fields.get("reason") or "")[:_LONGEST_REASON]))
    return rulings[-1] if len({ruling.value for ruling in rulings}) == 1 else None


def _verdict(value: object) -> str | None:
    value = value.strip().casefold() if isinstance(value, str) else None
    return value if value in _VERDICTS else None


def _rating(value: object) -> str | None:
    return str(value) if type(value) is int and value in _RATINGS else None


def _objects(text: str) -> Iterator[dict[str, object] | None]:
    """The objects that a text consists of, code fences aside; None for anything that is not an object."""
    text = _BACKSLASH.sub(lambda match: match.group() if match.group(1) else r"\\", text)
    place = _skip(text, 0)
    while place < len(text):
        found, end = _object(text, place)
        yield found
        if found is None:
            return
        place = _skip(text, end)


def _skip(text: str, place: int) -> int:
    match = _BETWEEN_OBJECTS.match(text, place)
    return match.end() if match else place


def _object(text: str, start: int) -> tuple[dict[str, object] | None, int]:
    try:
        found, end = _DECODER.raw_decode(text, start)
    except _RepeatedKeyError:
        return None, start
    except (ValueError, RecursionError):
        return _loose_object(text, start)
    return (found, end) if isinstance(found, dict) else (None, start)


def _loose_object(text: str, start: int) -> tuple[dict[str, object] | None, int]:
    """A flat object in Python syntax: with single or double quotes, or a trailing comma."""
    if not text.startswith("{", start):
        return None, start
    pairs: list[tuple[str, object]] = []
    place, goes_on = start + 1, True
    while goes_on and (field := _FIELD.match(text, place)):
        pairs.append((_text_in(field.group(1)), _unquoted(field.group(2))))
        place, goes_on = field.end(), bool(field.group(3))
    try:
        return (_fields(pairs), place + 1) if pairs and text.startswith("}", place) else (None, start)
    except _RepeatedKeyError:
        return None, start


def _unquoted(raw: str) -> str | int | None:
    """The value of a string in quotes, null, or an integer; anything else unchanged."""
    if raw[0] in "\"'":
        return _text_in(raw)
    if raw in ("null", "None"):
        return None
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 10 else raw


def _text_in(quoted: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match.group(1) == "n" else match.group(1), quoted[1:-1])


class _RepeatedKeyError(ValueError):
    pass


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = {key.strip().casefold(): value for key, value in pairs}
    if len(fields) < len(pairs):
        raise _RepeatedKeyError
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_fields, strict=False)
