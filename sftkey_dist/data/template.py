r"""Prompt templates: a text with columns in braces, ``{question}\n{options}``.

- ``{name}`` is the column of that name; ``{a.b}`` is field b of column a. A row without it is refused.
- ``{{`` and ``}}`` around a text are braces that stay, as in ``str.format``: ``{{name}}`` is written ``{name}``.
- Braces around what is no name stay as they are: ``{"grade": "A"}``, ``\frac{1}{2}``, ``{}``. A name starts with a
  letter and has none of the characters of code and formulas. A row that has a column of just that text wins.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(r"\{\{|\{([^{}]+)\}|\}\}")
_NAME = re.compile(r"""[^\W\d][^"'\\\n+*^$=<>()|,;]*""")


@dataclass(frozen=True)
class Field:
    """A text in braces; ``is_name`` tells whether it can mean nothing but a column."""

    name: str
    is_name: bool


Part = str | Field


class TemplateError(ValueError):
    """A template that can be read in two ways."""


@lru_cache(maxsize=64)
def parse_template(template: str) -> tuple[Part, ...]:
    """Texts and fields, in order.

    Raises:
        TemplateError: a ``{{`` has no ``}}``.
    """
    parts: list[Part] = []
    open_at: list[int] = []
    end = 0
    for token in _TOKEN.finditer(template):
        parts.append(template[end : token.start()])
        end = token.end()
        if token.group(1):
            parts.append(Field(token.group(1), _NAME.fullmatch(token.group(1)) is not None))
        elif token.group() == "{{":
            open_at.append(token.end())
            parts.append("{")
        elif open_at:
            open_at.pop()
            parts.append("}")
        else:  # the end of nested braces, {"a": {"b": 1}}
            parts.append("}}")
    if open_at:
        text = template[open_at[-1] :][:40]
        raise TemplateError(f"'{{{{' before {text!r} has no '}}}}'; double both braces of a text that is no column")
    return (*parts, template[end:])


def fields_of(template: str) -> list[Field]:
    """The texts in braces that may be columns; a template without any is itself a column's name."""
    return [part for part in parse_template(template) if isinstance(part, Field)]


def fill(template: str, has: Callable[[str], bool], value_of: Callable[[str], str]) -> str:
    """The template with its fields replaced.

    Args:
        template: text with columns in braces.
        has: whether there is a column of this name.
        value_of: a column's text.
    """
    return "".join([_written(part, has, value_of) for part in parse_template(template)])


def _written(part: Part, has: Callable[[str], bool], value_of: Callable[[str], str]) -> str:
    if isinstance(part, str):
        return part
    return value_of(part.name) if part.is_name or has(part.name) else f"{{{part.name}}}"
