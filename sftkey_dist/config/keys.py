"""Looks up the keys of a section, and of the sections inside it, by their types."""

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sftkey_dist.config.section import KeysOf


def keys_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by the keys that are written in a configuration."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def types_at(section: type[BaseModel], keys: Sequence[str]) -> Iterator[object]:
    """The types of the value at a path of keys below a section; none if the path does not exist."""
    yield from _types_below([section], keys)


def names_at(section: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """The names of the keys that are valid at a path of keys below a section."""
    return sorted({name for each in sections_at(section, keys) for name in keys_of(each)})


def sections_at(section: type[BaseModel], keys: Sequence[str]) -> list[type[BaseModel]]:
    """The sections that are valid at a path of keys below a section, by themselves or in a list."""
    leaves = [item for leaf in types_at(section, keys) for item in (leaf, *_items(leaf))]
    return [leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def _types_below(annotations: Sequence[object], keys: Sequence[str]) -> Iterator[object]:
    found = [leaf for annotation in annotations for leaf in _alternatives(annotation)]
    if not keys:
        yield from found
        return
    for leaf in found:
        yield from _types_below(list(_inner(leaf, keys[0])), keys[1:])


def _inner(leaf: object, key: str) -> Iterator[object]:
    """The types of the value at a key of a section or mapping; a list of sections may be written as a single
    section."""
    if isinstance(leaf, type) and issubclass(leaf, BaseModel):
        if field := keys_of(leaf).get(key):
            yield _annotation(field)
    elif get_origin(leaf) is dict:
        yield get_args(leaf)[1]
    for item in _items(leaf):
        yield from _inner(item, key)


def _items(leaf: object) -> Iterator[object]:
    """The types of the items of a list."""
    if get_origin(leaf) is tuple:
        for item in get_args(leaf):
            yield from _alternatives(item)


def _annotation(field: FieldInfo) -> object:
    return next((note.section for note in field.metadata if isinstance(note, KeysOf)), field.annotation)


def _alternatives(annotation: object) -> Iterator[object]:
    """The members of a union, without their annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation
