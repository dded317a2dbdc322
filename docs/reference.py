"""Writes configuration.md from the schema: ``python docs/reference.py``, which `make docs` calls."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sftkey_dist.config import RunConfig
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.config.study import StudyConfig
from sftkey_dist.config.tune import TuneConfig

PAGE = Path(__file__).with_name("configuration.md")
Schema = Mapping[str, Any]

_WIDTH = 115
_STUCK = "\0"
_HEAD = """\
# Configuration reference

This page is generated from the schema in `sftkey_dist/config` by `make docs`. The text of each entry is the
documentation of the key in the code. `sftkey run --help` prints the keys of a run in a terminal.

A configuration is one or several YAML files, which are merged from left to right, and `section.key=value` overrides on
the command line, which win. A key of a list is written here without an index: `data.train.path` is the `path` of every
source in `data.train`. `<name>` stands for a name that you choose. Unknown keys are errors.
"""
_CHAPTERS: tuple[tuple[str, str, str, type[BaseModel]], ...] = (
    (
        "Keys of a run",
        "These are the keys of a file for `sftkey run` and for every command that takes a CONFIG.",
        "",
        RunConfig,
    ),
    ("Keys of a study", "A file that also has the section `study` describes many runs.", "study.", StudyConfig),
    ("Keys of a tuning", "A file for `sftkey tune` also has the section `tune`.", "tune.", TuneConfig),
    ("Keys of `sftkey segment`", "`sftkey segment` takes these keys only.", "", SegmentConfig),
)


@dataclass(frozen=True)
class Key:
    """A key of a configuration.

    Attributes:
        name: with all that it lies in, `training.zero.offload`.
        schema: of its value.
        is_required: whether its section cannot be without it.
        alternative: what the section is that it lies in, where there may be several.
    """

    name: str
    schema: Schema
    is_required: bool
    alternative: str = ""


def keys_of(section: type[BaseModel], prefix: str = "") -> list[Key]:
    """Every key below a section."""
    schema = section.model_json_schema()
    return list(_keys(schema, schema.get("$defs", {}), prefix))


def render() -> str:
    """The page."""
    chapters = [_chapter(*chapter) for chapter in _CHAPTERS]
    return "\n".join([_HEAD, *chapters])


def _chapter(title: str, about: str, prefix: str, section: type[BaseModel]) -> str:
    lines, group, alternative = [f"## {title}", "", about, ""], None, ""
    definitions = section.model_json_schema().get("$defs", {})
    for key in keys_of(section, prefix):
        if (of := _group_of(key.name.removeprefix(prefix))) != group:
            group = of
            lines += [f"### `{prefix}{group}`" if group else "### Top level", ""]
        if key.alternative not in ("", alternative):
            lines += [*_wrapped(f"*{key.alternative}*"), ""]
        alternative = key.alternative
        lines += [*_entry(key, definitions), ""]
    return "\n".join(lines)


def _group_of(key: str) -> str:
    """What its heading is: the first part of the name of a key that lies in a section."""
    return key.partition(".")[0] if "." in key else ""


def _entry(key: Key, definitions: Mapping[str, Schema]) -> Iterator[str]:
    kind = " or ".join(dict.fromkeys(_kinds(key.schema, definitions)))
    yield from _wrapped(f"- `{key.name}`: {kind}{_default(key)}")
    if description := _description(key, definitions):
        yield ""
        yield from _wrapped(description, "    ")


def _description(key: Key, definitions: Mapping[str, Schema]) -> str:
    section = definitions[_name(key.schema)] if "$ref" in key.schema else {}
    return " ".join((key.schema.get("description") or section.get("description", "")).split())


def _wrapped(text: str, indent: str = "") -> list[str]:
    """Lines none of which begins like an item of a list or a heading."""
    stuck = re.sub(r" (?=(?:[-+*>#]+|\d+[.)]) )", _STUCK, text)
    lines = textwrap.wrap(
        stuck,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_STUCK, " ") for line in lines]


def _keys(schema: Schema, definitions: Mapping[str, Schema], prefix: str, alternative: str = "") -> Iterator[Key]:
    """The keys of a section, those that hold values before those that hold sections."""
    inner = []
    for name, value in schema.get("properties", {}).items():
        yield Key(f"{prefix}{name}", value, name in schema.get("required", ()), alternative)
        sections = list(_sections(value, definitions))
        for suffix, section in sections:
            first_line = section.get("description", "").partition("\n")[0] if len(sections) > 1 else ""
            inner.append((section, f"{prefix}{name}.{suffix}", first_line))
    for section, path, first_line in inner:
        yield from _keys(section, definitions, path, first_line)


def _name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _sections(schema: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """The sections that a value may hold, and what stands between its name and their keys."""
    if "$ref" in schema and "properties" in (target := definitions[_name(schema)]):
        yield "", target
    for option in schema.get("anyOf", ()):
        yield from _sections(option, definitions)
    if isinstance(schema.get("items"), dict):
        yield from _sections(schema["items"], definitions)
    if values := _values_of_a_mapping(schema):
        yield from ((f"<name>.{suffix}", of) for suffix, of in _sections(values, definitions))


def _values_of_a_mapping(schema: Schema) -> Schema | None:
    """The schema of its values, whatever its names must look like; None where they may be anything."""
    by_pattern = list(schema.get("patternProperties", {}).values())
    values = by_pattern[0] if by_pattern else schema.get("additionalProperties")
    return values if isinstance(values, dict) else None


def _kinds(schema: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    """What a value may be, in words."""
    if "$ref" in schema:
        target = definitions[_name(schema)]
        yield from ["section"] if "properties" in target else _kinds(target, definitions)
    elif "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _kinds(option, definitions)
    elif "enum" in schema:
        yield from (f"`{value}`" for value in schema["enum"])
    elif "const" in schema:
        yield f"`{schema['const']}`"
    elif schema.get("type") == "array":
        yield f"list of {_inner(schema, definitions)}"
    elif values := _values_of_a_mapping(schema):
        kinds = dict.fromkeys("sections" if kind == "section" else kind for kind in _kinds(values, definitions))
        yield f"mapping to {' or '.join(kinds)}"
    else:
        yield _plain_kind(schema)


def _inner(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    items = schema["items"] if "items" in schema else schema.get("prefixItems", [{}])[0]
    kinds = list(dict.fromkeys(_kinds(items, definitions))) if items else ["values of any kind"]
    return " or ".join("sections" if kind == "section" else kind for kind in kinds)


def _plain_kind(schema: Schema) -> str:
    names = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "null": "`null`"}
    kind = names.get(schema.get("type", ""), "mapping" if schema.get("type") == "object" else "text")
    if schema.get("format") == "date":
        return "date"
    bounds = [
        f"{word} {_number(schema[name])}"
        for name, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if name in schema
    ]
    return " ".join([kind, *bounds])


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _default(key: Key) -> str:
    if key.is_required:
        return "; required"
    is_shown = "default" in key.schema and not isinstance(key.schema["default"], dict)
    return f"; default `{json.dumps(key.schema['default'], ensure_ascii=False)}`" if is_shown else ""


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
