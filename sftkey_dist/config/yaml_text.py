"""Reads and writes the YAML of configurations: scalars of YAML 1.2's core schema, and nothing is lost silently.

PyYAML reads YAML 1.1, in which `1:30` is 90, `no` is false, `010` is 8 and `1e-3` is a text.
"""

import re
from typing import Any

import yaml

_MAX_LEVELS = 50
_BOOL = r"true|True|TRUE|false|False|FALSE"
_INT = r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|\.[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))"
_NAN = r"\.(nan|NaN|NAN)"
_NULL = r"~|null|Null|NULL|"
_TAGS = {
    "null": (_NULL, ["~", "n", "N", ""]),
    "bool": (_BOOL, list("tTfF")),
    "int": (_INT, list("-+0123456789")),
    "float": (f"{_FLOAT}|{_NAN}", list("-+.0123456789")),
}
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, RecursionError)
"""Exceptions that PyYAML raises: its own, and Python's for numbers with too many digits, for keys that are mappings,
and for deeply nested brackets."""


class YamlError(ValueError):
    """A text that cannot be read as a configuration; the message is one line."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, anchors (aliases expand without bound in memory) and deep nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as its base has it)
    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError(
                f"aliases and anchors are not allowed (line {line}); put a text that begins with & or * in quotes"
            )
        if self._level >= _MAX_LEVELS:
            raise yaml.YAMLError(f"more than {_MAX_LEVELS} levels of nested lists and keys (line {line})")
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} appears twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would read as another type, and writes no anchors."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: object) -> bool:
        return True


_KEPT = {None, *(f"tag:yaml.org,2002:{name}" for name in (*_TAGS, "str", "seq", "map"))}
_Loader.yaml_constructors = {tag: make for tag, make in _Loader.yaml_constructors.items() if tag in _KEPT}
for _tag, (_pattern, _first) in _TAGS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^({_pattern})$"), _first)


def read_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        YamlError: The text is not valid YAML, or uses a feature that configurations do not allow.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (is a SafeLoader)
    except _UNREADABLE as error:
        raise YamlError(_problem_of(error)) from None


def _problem_of(error: Exception) -> str:
    """What is wrong and where, in one line: without the excerpt, in which a mark below the line points at the place."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark, said = error.problem_mark, " ".join(filter(None, (error.context, error.problem)))
    return f"{' '.join(said.split())} (line {mark.line + 1}, column {mark.column + 1})"


def write_yaml(content: object) -> str:
    """Write content of JSON's types as a text that `read_yaml` reads back as the same content."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def read_value(text: str) -> object:
    """Parse a text that is exactly one YAML value; a comment after it would be lost silently, so it is refused.

    Raises:
        YamlError: As `read_yaml`, or text follows the value.
    """
    value = read_yaml(text)
    end = _end_of_value(text)
    if text[end:].strip():
        raise YamlError(f"{text[end:].strip()!r} would be lost; put text in quotes")
    return value


def unquoted(text: str) -> str:
    """A text without the YAML quotes around the whole of it; any other text is returned as it is."""
    if text[:1] not in ("'", '"'):
        return text
    try:
        value = read_value(text)
    except YamlError:
        return text
    return value if isinstance(value, str) else text


def _end_of_value(text: str) -> int:
    node = yaml.compose(text, Loader=_Loader)
    return 0 if node is None else node.end_mark.index
