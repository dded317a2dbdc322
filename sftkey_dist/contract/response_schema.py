"""The JSON schema of a response that is one JSON object, for servers that constrain what a model writes.

It keeps to keywords that all such servers implement alike. `pattern` is none of them: some compare it with the whole
text and others search for it. The grammar of `contract/grammar.py` is stricter for that reason.
"""

import json
from collections.abc import Callable
from typing import Any

from sftkey_dist.contract.json_schema import NO_STRING
from sftkey_dist.contract.parts import Form
from sftkey_dist.contract.response import ResponseContract
from sftkey_dist.contract.segment import NumberRange, Segment

RESPONSE_SCHEMA = "response_schema.json"
"""File with the schema in the folder of a trained model. Libraries that load the model ignore it."""

_CALL = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
}
_CALLS = {"anyOf": [_CALL, {"type": "array", "items": _CALL, "minItems": 1}]}


def response_schema(contract: ResponseContract, form: Form) -> dict[str, Any] | None:
    """The schema of a response; None if the contract writes no JSON object in this form."""
    if form is not Form.TAGGED or contract.container != "json":
        return None
    keys = contract.key_segments
    one_of_the_keys = {"anyOf": [{"required": [segment.name]} for segment in keys]}
    return _object(contract, _field) | ({} if any(segment.required for segment in keys) else one_of_the_keys)


def certain_schema(contract: ResponseContract) -> dict[str, Any]:
    """What every server that constrains a response by its schema keeps to: the fields, their types and their labels.

    Servers differ in the order of fields, in bounds and lengths, and in the keywords of a schema of the user's.
    """
    return _object(contract, _certain_field)


def _object(contract: ResponseContract, schema_of: Callable[[Segment], dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {segment.name: schema_of(segment) for segment in contract.segments},
        "required": [segment.name for segment in contract.segments if segment.required],
        "additionalProperties": False,
    }


def value_schema(segment: Segment) -> dict[str, Any]:
    """The schema of the value of a segment that is JSON but no string."""
    check = segment.check
    if check is not None and check.one_of is not None:
        return {"enum": [json.loads(text) for text in check.one_of]}
    if check is not None and check.number is not None:
        return number_schema(check.number)
    if check is not None and check.json_schema is not None:
        return _without_strings(check.json_schema)
    return _CALLS if segment.value == "tool_call" else {"type": NO_STRING}


def number_schema(bounds: NumberRange) -> dict[str, Any]:
    """The schema of a number within bounds."""
    limits = {"minimum": bounds.min, "maximum": bounds.max}
    return {"type": "number", **{name: limit for name, limit in limits.items() if limit is not None}}


def _field(segment: Segment) -> dict[str, Any]:
    if segment.value != "text":
        moved: dict[str, Any] = _with_references_below(value_schema(segment), f"#/properties/{segment.name}")
        return moved
    labels = segment.check.one_of if segment.check else None
    return {"type": "string", "enum": list(labels)} if labels else {"type": "string", "minLength": 1}


def _certain_field(segment: Segment) -> dict[str, Any]:
    if segment.check is not None and segment.check.one_of is not None:
        return _field(segment)
    return {"type": "string" if segment.value == "text" else NO_STRING}


def _without_strings(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of a user's without strings, which the container does not accept where it expects other values."""
    types = schema.get("type", NO_STRING)
    return {**schema, "type": types if isinstance(types, str) else [name for name in types if name != "string"]}


def _with_references_below(schema: Any, place: str) -> Any:
    """The schema with its references to parts of itself, once it has become a part of another schema."""
    if isinstance(schema, list):
        return [_with_references_below(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value.removeprefix("#")
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/"))
        else _with_references_below(value, place)
        for key, value in schema.items()
    }
