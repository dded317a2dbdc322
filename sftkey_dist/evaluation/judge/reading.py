"""Reading a judge's reply: one small JSON object, strictly, or nothing."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_THINKING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_VERDICTS, _RATINGS = ("correct", "incorrect"), range(1, 6)
_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)


@dataclass(frozen=True)
class Ruling:
    """What a judge said: ``correct`` or ``incorrect``, or a rating from ``1`` to ``5``; and why."""

    value: str
    reason: str


Reader = Callable[[str], Ruling | None]


def read_verdict(reply: str) -> Ruling | None:
    """``{"verdict": "correct" | "incorrect", "reason": …}``; None for anything else."""
    fields = _object(reply, "verdict")
    return Ruling(fields["verdict"], _reason(fields)) if fields.get("verdict") in _VERDICTS else None


def read_rating(reply: str) -> Ruling | None:
    """``{"rating": 1 to 5, "reason": …}``; None for anything else."""
    fields = _object(reply, "rating")
    rating = fields.get("rating")
    return Ruling(str(rating), _reason(fields)) if type(rating) is int and rating in _RATINGS else None


def possible_replies(reader: Reader) -> list[str]:
    """Every reply, without a reason, that a reader can read."""
    key, values = ("verdict", _VERDICTS) if reader is read_verdict else ("rating", _RATINGS)
    return [json.dumps({key: value}) for value in values]


def _object(reply: str, key: str) -> dict[str, Any]:
    """The whole reply must be the object: a verdict quoted inside other text is somebody else's."""
    text = _THINKING.sub("", reply).strip()
    fenced = _FENCE.match(text)
    try:
        found = json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_without_repeated_keys)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and set(found) <= {key, "reason"} else {}


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key is repeated")
    return fields


def _reason(fields: dict[str, Any]) -> str:
    return str(fields.get("reason") or "")[:300]
