"""`a.b=value` overrides: what the value is depends on the key that it is for."""

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sftkey_dist.config.section import KeysOf
from sftkey_dist.config.yaml_text import YamlError, read_value, unquoted
from sftkey_dist.errors import ConfigError

_MOST_KEYS = 20


def parse_override(section: type[BaseModel], override: str) -> dict[str, Any]:
    """The nested keys of `a.b=value`.

    For a key that takes text, the value is the text as it stands, less quotes around the whole of it; `null` and
    nothing stand for no value where the key may have none. For other keys it is one YAML value.

    Args:
        section: whose keys they are.
        override: as on the command line.

    Raises:
        ConfigError: it has no key, or a value that cannot be read.
    """
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or not all(keys) or len(keys) > _MOST_KEYS:
        raise ConfigError(f"override {override[:80]!r}: write it as section.key=value")
    if not _is_unicode(override):
        raise ConfigError(f"override {override[:80]!r}: is not UTF-8 text")
    value = _value(list(_targets([section], keys)), text, path)
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]


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


def _targets(annotations: Sequence[Any], keys: Sequence[str]) -> Iterator[Any]:
    """The types of what the keys lead to; none for a key that does not exist."""
    found = [leaf for annotation in annotations for leaf in _alternatives(annotation)]
    if not keys:
        yield from found
        return
    for leaf in found:
        yield from _targets(list(_inner(leaf, keys[0])), keys[1:])


def _inner(leaf: Any, key: str) -> Iterator[Any]:
    """What a key of a section, or of a mapping, holds; a single section may stand for a list of one."""
    if isinstance(leaf, type) and issubclass(leaf, BaseModel):
        if key in leaf.model_fields:
            yield _annotation(leaf.model_fields[key])
    elif get_origin(leaf) is dict:
        yield get_args(leaf)[1]
    elif get_origin(leaf) is tuple:
        for item in get_args(leaf):
            for alternative in _alternatives(item):
                yield from _inner(alternative, key)


def _annotation(field: FieldInfo) -> Any:
    return next((note.section for note in field.metadata if isinstance(note, KeysOf)), field.annotation)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what annotates them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _is_text(target: Any) -> bool:
    if get_origin(target) is Literal:
        return all(isinstance(choice, str) for choice in get_args(target))
    return isinstance(target, type) and (issubclass(target, str | Path) or issubclass(target, Enum))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
