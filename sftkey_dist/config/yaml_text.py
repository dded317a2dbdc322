"""YAML as configurations are written: the scalars of YAML 1.2's core schema, and nothing that is lost in silence.

PyYAML reads YAML 1.1, where `1:30` is 90, `no` is false, `010` is 8 and `1e-3` is a text.
"""

import re
from typing import Any

import yaml

_MOST_LEVELS = 50
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
"""What PyYAML raises: its own errors, and Python's for numbers of too many digits, for keys that are mappings and for
brackets in each other."""


class YamlError(ValueError):
    """A text that is no configuration; the message is one line."""


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
        if self._level >= _MOST_LEVELS:
            raise yaml.YAMLError(f"more than {_MOST_LEVELS} levels of lists and keys in each other (line {line})")
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} appears twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would not take for text, and writes no anchors."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


_KEPT = {None, *(f"tag:yaml.org,2002:{name}" for name in (*_TAGS, "str", "seq", "map"))}
_Loader.yaml_constructors = {tag: make for tag, make in _Loader.yaml_constructors.items() if tag in _KEPT}
for _tag, (_pattern, _first) in _TAGS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^({_pattern})$"), _first)


def read_yaml(text: str) -> Any:
    """The content of a text.

    Raises:
        YamlError: it is not valid YAML, or uses what configurations do not.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (is a SafeLoader)
    except _UNREADABLE as error:
        raise YamlError(" ".join(str(error).split())) from None


def write_yaml(content: Any) -> str:
    """A text that `read_yaml` reads as this content, which is of JSON's types."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def read_value(text: str) -> Any:
    """`read_yaml` of a text that is one value from end to end: a comment behind it would be lost in silence.

    Raises:
        YamlError: as `read_yaml`, or something follows the value.
    """
    value = read_yaml(text)
    end = _end_of_value(text)
    if text[end:].strip():
        raise YamlError(f"{text[end:].strip()!r} would be lost; put text in quotes")
    return value


def unquoted(text: str) -> str:
    """A text that is quoted from end to end, as YAML quotes, without its quotes; every other one as it is."""
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
