r"""Prompt templates: a text with columns in braces, ``{question}\n{options}``.

- ``{name}`` is replaced by the column of that name, and ``{a.b}`` by the field b of column a. A row without it is
  refused.
- ``{{`` and ``}}`` are escaped braces, as in ``str.format``: ``{{name}}`` is written as ``{name}``.
- Braces around anything that is not a name are kept: ``{"grade": "A"}``, ``\frac{1}{2}``, ``{}``. A name starts with a
  letter and contains no characters that are typical of code and formulas. However, if a row has a column with exactly
  that text as its name, the column is used.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(r"\{\{|\{([^{}]+)\}|\}\}")
_NAME = re.compile(r"""[^\W\d][^"'\\\n+*^$=<>()|,;]*""")


@dataclass(frozen=True)
class Field:
    """A text in braces; ``is_name`` is true if it can only be the name of a column."""

    name: str
    is_name: bool


Part = str | Field


class TemplateError(ValueError):
    """Raised for an ambiguous template."""


@lru_cache(maxsize=64)
def parse_template(template: str) -> tuple[Part, ...]:
    """Split a template into texts and fields, in order.

    Raises:
        TemplateError: A ``{{`` has no matching ``}}``.
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
        raise TemplateError(
            f"'{{{{' before {text!r} has no '}}}}'; double both braces around a text that is not a column"
        )
    return (*parts, template[end:])


def fields_of(template: str) -> list[Field]:
    """The texts in braces that may be columns. A template without any is itself the name of a column."""
    return [part for part in parse_template(template) if isinstance(part, Field)]


def fill(template: str, has: Callable[[str], bool], value_of: Callable[[str], str]) -> str:
    """Replace the fields of a template.

    Args:
        template: text with columns in braces.
        has: returns whether there is a column of this name.
        value_of: returns the text of a column.
    """
    return "".join([_written(part, has, value_of) for part in parse_template(template)])


def _written(part: Part, has: Callable[[str], bool], value_of: Callable[[str], str]) -> str:
    if isinstance(part, str):
        return part
    return value_of(part.name) if part.is_name or has(part.name) else f"{{{part.name}}}"
