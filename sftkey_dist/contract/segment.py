"""A named part of a response, and the check of its text."""

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Self

import jsonschema
import referencing
import referencing.jsonschema
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sftkey_dist.contract.json_schema import schema_problem
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern, match_whole


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True, allow_inf_nan=False
    )


class NumberRange(_Part):
    """Bounds of a number, inclusive."""

    min: float | None = None
    """Smallest allowed number."""
    max: float | None = None
    """Largest allowed number."""


class Check(_Part):
    """A requirement on the text of a segment: exactly one of these keys. White space around the text is ignored."""

    regex: str | None = None
    """Regular expression that the whole text must match."""
    one_of: tuple[str, ...] | None = None
    """The allowed texts, compared exactly."""
    number: NumberRange | None = None
    """The text must be a decimal number within these bounds; `{}` allows every number."""
    json_schema: dict[str, Any] | None = None
    """The text must be JSON that this JSON schema accepts."""

    @model_validator(mode="after")
    def exactly_one_and_usable(self) -> Self:
        """A check has exactly one rule, which must be valid."""
        if sum(rule is not None for rule in (self.regex, self.one_of, self.number, self.json_schema)) != 1:
            raise ValueError("give exactly one of regex, one_of, number and json_schema")
        if self.one_of is not None and not self.one_of:
            raise ValueError("one_of must name at least one text")
        if self.regex is not None:
            try:
                compile_pattern(self.regex)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        if self.json_schema is not None:
            try:
                validator = jsonschema.Draft202012Validator
                validator.check_schema(self.json_schema, format_checker=validator.FORMAT_CHECKER)  # its patterns too
            except jsonschema.SchemaError as error:
                raise ValueError(f"json_schema is not a JSON schema: {error.message}") from None
            for reference in _references(self.json_schema):
                if not _resolves(reference, self.json_schema):
                    raise ValueError(
                        f"json_schema: $ref {reference!r} cannot be resolved; it must begin with # and "
                        f"refer to a part of the same schema"
                    )
        return self

    def problem(self, text: str) -> str | None:
        """Why the text is not allowed; None if it is allowed."""
        text = text.strip()
        if self.regex is not None:
            pattern = compile_pattern(self.regex, dot_matches_newline=True)
            return None if match_whole(pattern, text) else f"{text[:40]!r} is not {self.regex}"
        if self.one_of is not None:
            return None if text in self.one_of else _none_of(text, self.one_of)
        if self.number is not None:
            return _number_problem(text, self.number)
        return schema_problem(text, self.json_schema or {})


class Segment(_Part):
    """One named part of a response."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name used in data, weights and metrics, and as the field name in a JSON object."""
    tag: str = Field("", pattern=r"^([A-Za-z][A-Za-z0-9_]*)?$")
    """Name of the tag around it: `<Tag>…</Tag>`. Default: made from the name, e.g. `NextAction` from `next_action`."""
    key: bool = False
    """Whether the tokens of this segment are key tokens, which a key stage trains."""
    required: bool = True
    """Whether every response must contain it."""
    weight: float = Field(1.0, ge=1e-6, le=1_000_000)
    """Loss weight of its text in those preset stages that train it."""
    value: Literal["text", "json", "tool_call"] = "text"
    """Type of its value in a JSON object: `text` for a string, `json` for any other value, which the data gives as JSON
    text (`12.5`, `["a", "b"]`). `tool_call`: the calls of tools in a conversation, as the JSON text of one object with
    `name` and `arguments`, or of a list of several."""
    delimiter: str | None = None
    """Text before it in the plain convention; default: the contract's `delimiter`."""
    terminator: str | None = None
    """Text after it in the plain convention, for example `\\n</tool_call>`; default: none."""
    check: Check | None = None
    """Requirement on its text; default: none."""

    @model_serializer(mode="wrap")
    def newer_keys_only_where_they_are_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a newer key that is not set, so that digests equal those from before the key existed."""
        return {key: value for key, value in handler(self).items() if key != "terminator" or value}

    @property
    def tag_name(self) -> str:
        """Name of the tag, without angle brackets."""
        return self.tag or "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def opening(self) -> str:
        """The opening tag."""
        return f"<{self.tag_name}>"

    @property
    def closing(self) -> str:
        """The closing tag."""
        return f"</{self.tag_name}>"


def _none_of(text: str, allowed: Sequence[str]) -> str:
    other_case = next((each for each in allowed if each.casefold() == text.casefold()), None)
    hint = (
        f"; it differs from {other_case!r} in upper and lower case; `labels` of its source maps spellings to one"
        if other_case
        else ""
    )
    return f"{text[:40]!r} is none of {', '.join(allowed)}{hint}"


def _number_problem(text: str, bounds: NumberRange) -> str | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return f"{text[:40]!r} is not a number"
    if "_" in text or not text.isascii():  # which Python reads as a number too
        return f"{text[:40]!r} is not written with the digits 0 to 9"
    if not number.is_finite():
        return f"{text[:40]!r} is not a finite number"
    if bounds.min is not None and number < Decimal(str(bounds.min)):
        return f"{text[:40]} is below {bounds.min:g}"
    if bounds.max is not None and number > Decimal(str(bounds.max)):
        return f"{text[:40]} is above {bounds.max:g}"
    return None


def _references(schema: object) -> Iterator[str]:
    """Every ``$ref`` of a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            yield from _references(value)


def _resolves(reference: str, schema: dict[str, Any]) -> bool:
    resource = referencing.jsonschema.DRAFT202012.create_resource(schema)
    try:
        resource_id = resource.id() or ""
        registry: referencing.Registry[object] = referencing.Registry().with_resource(resource_id, resource)
        registry.resolver(resource_id).lookup(reference)
    except referencing.exceptions.Unresolvable:
        return False
    return True
