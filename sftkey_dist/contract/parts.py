"""Types that containers and their users share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

PROMPT = "prompt"
PROMPT_ID = 0
"""Segment id of the prompt, the first of `ResponseContract.segment_names`."""
END_OF_TURN = "end_of_turn"
THINKING_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
"""Opening and closing tags that published models write around their thinking, as their chat templates spell them."""


def segments_of(names: Sequence[str]) -> dict[str, set[int]]:
    """Ids by segment: each segment with its tags, and the end-of-turn token with the last one; the prompt is in none.

    Args:
        names: the names of all segment ids.
    """
    found: dict[str, set[int]] = {}
    for number, name in enumerate(names):
        if name not in (PROMPT, END_OF_TURN):
            found.setdefault(name.partition(".")[0], set()).add(number)
    last = list(found)[-1]
    found[last].add(names.index(END_OF_TURN))
    return found


class ContractError(ValueError):
    """Raised if a response cannot be written under the contract; ``reason`` is a short, stable name for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Form(StrEnum):
    """How the text of a response marks its segments."""

    TAGGED = "tagged"
    """In the contract's container, by default tags."""
    UNTAGGED = "untagged"
    """In the plain convention, with delimiters between the segments; SFT trains this form."""


class Violation(StrEnum):
    """The first rule of the contract that an output violates."""

    MISSING = "missing"
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out_of_order"
    NESTED = "nested"
    EMPTY = "empty"
    TEXT_OUTSIDE = "text_outside"
    TRAILING_TEXT = "trailing_text"
    INVALID_VALUE = "invalid_value"
    NOT_JSON = "not_json"
    UNKNOWN_FIELD = "unknown_field"


@dataclass(frozen=True)
class Piece:
    """A contiguous part of the response text that belongs to one segment; ``segment`` is one of ``segment_names``."""

    segment: str
    text: str

    @property
    def is_mark(self) -> bool:
        """Whether it is a tag or a delimiter, one of few texts that every example repeats."""
        return "." in self.segment


@dataclass(frozen=True)
class ParsedResponse:
    """The result of parsing: ``values`` of the segments if the output follows the contract, otherwise a
    ``violation``."""

    values: Mapping[str, str] = field(default_factory=dict)
    violation: Violation | None = None
    detail: str = ""

    @property
    def keeps_contract(self) -> bool:
        """Whether the whole output follows the contract."""
        return self.violation is None


class Container(Protocol):
    """A way to write segments as one text. Blank optional segments are left out."""

    def write(self, values: Mapping[str, str]) -> list[Piece]:
        """Write a response as pieces; ``values`` contains the segments that are present."""
        ...

    def read(self, text: str) -> ParsedResponse:
        """Parse a whole output strictly, without checking the values."""
        ...

    def search(self, text: str, name: str) -> str:
        """Find the most plausible text of a segment in an output that violates the contract."""
        ...
