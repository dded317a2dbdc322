"""Describes what is wrong with a configuration in one line, by the keys that the user wrote, with the remedy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sftkey_dist.config.messages import is_item_of_list, message_of

_MISFIT = {"missing": 1, "extra_forbidden": 1, "model_type": 2, "literal_error": 1}
"""How strongly an error of this type suggests that another alternative was meant."""
_FOR_A_SECTION = 3


@dataclass(frozen=True)
class Source:
    """A source of configuration keys: a file or the command line.

    Attributes:
        name: how messages refer to it.
        content: its keys and values.
    """

    name: str
    content: Mapping[str, object]


def describe(
    error: ValidationError,
    section: type[BaseModel],
    content: Mapping[str, object],
    sources: Sequence[Source],
    place: str = "",
) -> str:
    """Describe all problems of a configuration in one line, each with the source of its key.

    Args:
        error: the problems that validation found.
        section: the section that the content was validated as.
        content: the keys and values, merged from the sources.
        sources: where keys come from; later sources take precedence.
        place: prefix of every key in the message.
    """
    problems: dict[tuple[str, str], None] = {}
    for item in _of_nearest_alternatives(error.errors(include_url=False), content):
        path = list(_key(item, content))
        key, message = place + ".".join(map(str, path)), message_of(item, section, path)
        key = key.removesuffix(".")  # of a problem with the whole section
        problems[_source_of(path, sources), f"{key}: {message}" if key else message] = None
    by_source = groupby(problems, key=lambda problem: problem[0])
    return "; ".join(f"{source}: {'; '.join(text for _, text in found)}" for source, found in by_source)


def _source_of(path: Sequence[int | str], sources: Sequence[Source]) -> str:
    """The last source that contains a key or, if none does, the nearest section around it; without a key, all."""
    for length in range(len(path), 0, -1):
        for source in reversed(sources):
            if _holds(source.content, path[:length]):
                return source.name
    return ", ".join(source.name for source in sources if source.content) or "configuration"


def _holds(content: Any, path: Sequence[int | str]) -> bool:
    for part in path:
        is_item = isinstance(part, int) and isinstance(content, list | tuple) and part < len(content)
        if not is_item and not (isinstance(content, Mapping) and part in content):
            return False
        content = content[part]
    return True


def _of_nearest_alternatives(errors: Sequence[ErrorDetails], content: Mapping[str, object]) -> Iterator[ErrorDetails]:
    """For a value with several alternatives (a union), keep only the errors of the one that it resembles most.

    Validation reports the errors of all alternatives, and its locations contain internal names of the alternatives.
    """
    misfits: dict[tuple[int | str, ...], dict[int | str, int]] = {}
    for item in errors:
        place, alternative = _alternative(item, content)
        if alternative is not None:
            of_place = misfits.setdefault(place, {})
            of_place[alternative] = of_place.get(alternative, 0) + _misfit(item)
    for item in errors:
        place, alternative = _alternative(item, content)
        nearest = min(misfits[place], key=misfits[place].__getitem__) if alternative is not None else None
        if alternative == nearest and not _is_consequence(item, errors):
            yield item


def _is_consequence(item: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list is too short because parts of it are wrong, or a key is missing beside the number of an item."""
    length = len(item["loc"])
    if item["type"] == "too_short":
        return any(len(other["loc"]) > length and other["loc"][:length] == item["loc"] for other in errors)
    return item["type"] == "missing" and any(
        other["type"] == "extra_forbidden"
        and other["loc"][:-1] == item["loc"][:-1]
        and is_item_of_list(other["loc"][-1])
        for other in errors
    )


def _misfit(item: ErrorDetails) -> int:
    if item["type"] == "literal_error" and not isinstance(item["input"], str):
        return _FOR_A_SECTION
    return _MISFIT.get(item["type"], 0)


def _alternative(item: ErrorDetails, content: object) -> tuple[tuple[int | str, ...], int | str | None]:
    """The location of a value that has alternatives, and the alternative that an error belongs to, or None."""
    for index, part in enumerate(item["loc"]):
        is_last = index == len(item["loc"]) - 1
        if isinstance(part, int):
            content = content[part] if isinstance(content, list | tuple) and part < len(content) else content
        elif isinstance(content, Mapping) and part in content:
            content = content[part]
        elif isinstance(content, Mapping) and item["type"] == "missing" and is_last:
            return (), None
        else:
            return item["loc"][:index], part
    return (), None


def _key(item: ErrorDetails, content: object) -> Iterator[int | str]:
    """The key as the user wrote it, without the index of a single source and the names of alternatives."""
    for part in item["loc"]:
        if isinstance(part, int) and isinstance(content, Mapping):
            continue
        if isinstance(part, int):
            yield part
            content = content[part] if isinstance(content, list | tuple) and part < len(content) else None
        elif isinstance(content, Mapping) and part in content:
            yield part
            content = content[part]
    if item["type"] == "missing" and isinstance(item["loc"][-1], str):
        yield item["loc"][-1]
