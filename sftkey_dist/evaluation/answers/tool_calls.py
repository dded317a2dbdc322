"""Calls of tools. They are compared by name and arguments; their order does not matter."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.evaluation.answers.objects import MISSING, read_object, same_object

_MAX_CALLS = 64
_BETWEEN = re.compile(r"\s*</?tool_call>\s*")
"""Marks that models write around each of several calls."""


@dataclass(frozen=True)
class Call:
    """The name of a tool and the arguments, a JSON object."""

    name: str
    arguments: Mapping[str, object]


Calls = Sequence[Call]


def read_calls(text: str) -> Calls | None:
    """The calls in a text: an object with `name` and `arguments`, a list of such objects, or several objects with
    `<tool_call>` tags around them. None if the text is anything else."""
    whole = read_object(text)
    values = [whole] if whole is not MISSING else [read_object(part) for part in _BETWEEN.split(text) if part.strip()]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    calls = [_call(value) for value in flat[: _MAX_CALLS + 1]]
    found = [call for call in calls if call is not None]
    return found if 0 < len(found) == len(flat) <= _MAX_CALLS else None


def compare_calls(reference: Calls, answer: Calls) -> tuple[bool, str]:
    """Whether the calls are the same, and otherwise how they differ."""
    left = list(answer)
    for call in reference:
        same = next((other for other in left if _is_same(call, other)), None)
        if same is None:
            named = next((other for other in left if other.name == call.name), None)
            return False, f"{_differing(call, named)} differs" if named else f"no call of {call.name}"
        left.remove(same)
    return (False, f"an unexpected call of {left[0].name[:40]}") if left else (True, "")


def _is_same(one: Call, other: Call) -> bool:
    return one.name == other.name and same_object(one.arguments, other.arguments)


def _differing(call: Call, other: Call) -> str:
    """The first argument that differs."""
    names = [*call.arguments, *other.arguments]
    return next(
        f"argument {name[:40]!r} of {call.name}"
        for name in names
        if name not in call.arguments
        or name not in other.arguments
        or not same_object(call.arguments[name], other.arguments[name])
    )


def _call(value: object) -> Call | None:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        return None
    arguments = inner.get("arguments", inner.get("parameters", {}))
    arguments = read_object(arguments) if isinstance(arguments, str) else arguments
    return Call(inner["name"], arguments) if isinstance(arguments, Mapping) else None
