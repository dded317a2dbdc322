"""Code blocks of Markdown pages, for tests that read or run them."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Snippet:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def snippets_of(page: Path) -> tuple[Snippet, ...]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```([a-z]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return tuple(Snippet(page, text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)) for m in found)


def block(page: Path, language: str, holding: str) -> str:
    """The text of the only snippet of a page in a language that contains a text."""
    (found,) = [s.text for s in snippets_of(page) if s.language == language and holding in s.text]
    return found
