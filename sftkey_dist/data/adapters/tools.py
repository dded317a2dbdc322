"""Tools and their calls, in OpenAI's format and in the shorter ones that data sets use.

A call is passed to chat templates with its arguments as a mapping, as inference servers do: templates write them as
JSON themselves.
"""

import json
from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue, TypeAdapter, ValidationError

from sftkey_dist.data.adapters.columns import RowError, require_unicode

TOOLS_COLUMN = "tools"
"""Column with the tools of a row, as a list or as its JSON text; TRL reads the same column."""

_JSON_MAPPING = TypeAdapter(dict[str, JsonValue])


def tools_of(row: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """The descriptions of the tools in a row; none if it has no such column.

    Raises:
        RowError: The column is not a list of descriptions with a name each.
    """
    found = _decoded(_without_empty(row.get(TOOLS_COLUMN) or []))
    if not isinstance(found, list):
        raise RowError("invalid_tools", f"field {TOOLS_COLUMN!r} must be a list of tools, or its JSON text")
    return tuple(_tool(tool) for tool in found)


def calls_of(message: Mapping[str, object]) -> list[dict[str, object]]:
    """The calls of tools in a message, with arguments as mappings; none if there are none.

    Raises:
        RowError: A call has no name, or its arguments are not an object.
    """
    found = _decoded(_without_empty(message.get("tool_calls") or []))
    if not isinstance(found, list):
        raise RowError("invalid_tool_call", f"tool_calls must be a list, found {type(found).__name__}")
    return [_call(call) for call in found]


def call_in(text: str) -> dict[str, object]:
    """The call that is a text of its own: ``{"name": …, "arguments": {…}}``.

    Raises:
        RowError: See `calls_of`.
    """
    return _call(_decoded(text))


def text_of_calls(calls: list[dict[str, object]]) -> str:
    """Calls as the text of a segment: one object with name and arguments, or a list of several."""
    objects = [call["function"] for call in calls]
    return json.dumps(objects[0] if len(objects) == 1 else objects, ensure_ascii=False)


def as_sent(message: Mapping[str, object]) -> dict[str, object]:
    """A message as OpenAI's API takes it: the arguments of its calls are JSON texts."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return dict(message)
    functions = [call["function"] for call in calls]
    texts = [function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)} for function in functions]
    return {**message, "tool_calls": [call | {"function": text} for call, text in zip(calls, texts, strict=True)]}


def name_of(tool: Mapping[str, object]) -> str:
    """The name of a tool or of a call."""
    inner = tool.get("function")
    return str((inner if isinstance(inner, Mapping) else tool)["name"])


def _tool(tool: object) -> Mapping[str, object]:
    try:
        plain = _JSON_MAPPING.validate_python(tool, strict=True)
    except ValidationError:
        raise RowError("invalid_tools", f"a tool must be a mapping of JSON values, found {str(tool)[:40]!r}") from None
    require_unicode(json.dumps(plain, ensure_ascii=False), "a tool")
    inner = plain.get("function", plain)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise RowError("invalid_tools", f"a tool has no name: {str(tool)[:60]}")
    return cast(Mapping[str, object], plain)


def _call(call: object) -> dict[str, object]:
    outer = _fields_with_values(call)
    inner = _fields_with_values(outer.get("function", outer))
    name, arguments = inner.get("name"), _decoded(inner.get("arguments", {}))
    if not isinstance(name, str) or not name:
        raise RowError("invalid_tool_call", f"a tool call has no name: {str(call)[:60]}")
    try:
        plain = _JSON_MAPPING.validate_python(arguments, strict=True)
    except ValidationError:
        raise RowError(
            "invalid_tool_call",
            f"the arguments of the call of {name!r} must be a JSON object, found {str(arguments)[:40]!r}",
        ) from None
    require_unicode(json.dumps({name: plain}, ensure_ascii=False), f"a call of {name!a}")
    further = {"id": outer["id"]} if "id" in outer and "function" in outer else {}
    return {**further, "type": "function", "function": {"name": name, "arguments": plain}}


def _without_empty(value: object) -> object:
    """A structure without the fields that have no value, since a column of structures gives every item all fields.

    A text, in which ``null`` has been written on purpose, stays as it is.
    """
    if isinstance(value, Mapping):
        return {str(name): _without_empty(item) for name, item in value.items() if item is not None}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _fields_with_values(value: object) -> dict[str, object]:
    """The fields of a call that have a value."""
    if not isinstance(value, Mapping):
        raise RowError("invalid_tool_call", f"a tool call must be an object, found {str(value)[:40]!r}")
    return {str(name): item for name, item in value.items() if item is not None}


def _decoded(value: object) -> object:
    """The value of a JSON text; any other value, and any other text, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        return value
