"""Classification: which of a few labels an answer names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sftkey_dist.evaluation.answers.choice import Mention, choose, without_inner
from sftkey_dist.evaluation.answers.statement import first_paragraph, unwrapped, without_lead
from sftkey_dist.evaluation.answers.text import folded, is_same_but_for_case, normalized


@dataclass(frozen=True)
class Label:
    """The label that a text chooses, and whether the text contains nothing else."""

    name: str
    is_plain: bool


def read_label(text: str, labels: tuple[str, ...]) -> Label | None:
    """The label that a text is or chooses; None if it chooses none or several."""
    for each in (text, unwrapped(text), unwrapped(without_lead(unwrapped(text))), _only_heading(text, labels)):
        exactly = [label for label in labels if normalized(label) == normalized(each)]
        as_written = [label for label in exactly if label == each.strip()]
        if len(exactly) > 1 and not as_written:
            return None
        if exactly:
            name = (as_written or exactly)[0]
            return Label(name, is_plain=is_same_but_for_case(text, name))
    chosen = choose(_in_one_line(text), lambda clause: _mentions(clause, labels))
    return None if chosen is None else Label(chosen, is_plain=False)


def _only_heading(text: str, labels: Sequence[str]) -> str:
    """The first paragraph, unless a later line is a label too."""
    names = {normalized(label) for label in labels}
    _, *later = text.strip().splitlines() or [""]
    return "" if any(normalized(line) in names for line in later) else unwrapped(first_paragraph(text))


def _in_one_line(text: str) -> str:
    """The text without line breaks, as a label may run over two lines."""
    return " ".join(folded(line) for line in text.splitlines())


def _mentions(text: str, labels: Sequence[str]) -> list[Mention]:
    found = [
        Mention(label, match.start(), match.end())
        for label in labels
        for match in _pattern(label).finditer(folded(text))
    ]
    return without_inner(found)


@cache
def _pattern(label: str) -> re.Pattern[str]:
    """A label as a separate word: not after a hyphen, sign or point, not before more digits, and not in `no doubt`."""
    behind = r"(?!\s+(?:doubt|question|problem|matter)\b)" if normalized(label) == "no" else ""
    return re.compile(rf"(?<![\w+-])(?<!\d\.){re.escape(normalized(label))}(?![\w-])(?!\.\d){behind}")
