"""Parses `a.b=value` overrides. How a value is read depends on the type of its key."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from sftkey_dist.config.keys import types_at
from sftkey_dist.config.yaml_text import YamlError, read_value, unquoted
from sftkey_dist.errors import ConfigError

_MAX_KEYS = 20


def parse_override(section: type[BaseModel], override: str) -> dict[str, Any]:
    """The nested keys of `a.b=value`.

    For a key that takes text, the value is the text as it is, without quotes around the whole text; `null` and an
    empty text mean None if the key is optional. For any other key the value is parsed as one YAML value.

    Args:
        section: the section that the keys belong to.
        override: the text as on the command line.

    Raises:
        ConfigError: The override has no key, or its value cannot be parsed.
    """
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys) or len(keys) > _MAX_KEYS:
        raise ConfigError(f"override {override[:80]!r}: write it as section.key=value")
    if not _is_unicode(override):
        raise ConfigError(f"override {override[:80]!r}: is not UTF-8 text")
    return nested(keys, _value(list(types_at(section, keys)), text, path))


def nested(keys: Sequence[str], value: object) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for the keys ``a`` and ``b``."""
    first, *rest = keys
    return {first: nested(rest, value) if rest else value}


def _value(targets: Sequence[Any], text: str, path: str) -> Any:
    if any(_is_text(target) for target in targets):
        if type(None) in targets and text in ("", "null"):
            return None
        if all(_is_text(target) for target in targets if target is not type(None)) or text[:1] not in "[{":
            return unquoted(text)
    try:
        return read_value(text)
    except YamlError as error:
        raise ConfigError(f"override {path}: cannot read the value: {error}") from None


def _is_text(target: object) -> bool:
    if get_origin(target) is Literal:
        return all(isinstance(choice, str) for choice in get_args(target))
    return isinstance(target, type) and (issubclass(target, str | Path) or issubclass(target, Enum))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
