"""The list of configuration keys in the help of a command, made from the schema."""

import json
from collections.abc import Iterator
from types import UnionType
from typing import get_args, get_origin

from pydantic import BaseModel

from sftkey_dist.config.keys import keys_of


def keys_help(section: type[BaseModel]) -> str:
    """The end of a command's help in Markdown, with every key of its configuration."""
    return "**Configuration keys**\n\n" + "\n\n".join(line.replace("*", r"\*") for line in describe_keys(section))


def describe_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield one line per configuration key with its name, default and meaning, from the schema."""
    for name, field in keys_of(section).items():
        inner = _section_type(field.annotation)
        if inner is not None:
            yield from describe_keys(inner, f"{prefix}{name}.")
        else:
            default = (
                ""
                if field.is_required()
                else f" = {json.dumps(field.get_default(call_default_factory=True), default=_jsonable)}"
            )
            yield f"{prefix}{name}{default}: {' '.join((field.description or '').split())}"


def _section_type(annotation: object) -> type[BaseModel] | None:
    """The section type in `Section`, `Section | None` or a list of sections; None for any other type."""
    options = get_args(annotation) if get_origin(annotation) in (UnionType, tuple) else ()
    sections = [option for option in (annotation, *options) if option not in (type(None), ...)]
    for option in sections if len(sections) <= 2 else ():
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _jsonable(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
