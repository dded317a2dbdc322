"""The words that containers and their users share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

PROMPT = "prompt"
PROMPT_ID = 0
"""Segment id of the prompt, the first of `ResponseContract.segment_names`."""
END_OF_TURN = "end_of_turn"


class ContractError(ValueError):
    """A response cannot be written under the contract; ``reason`` is a short stable name for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Form(StrEnum):
    """How the segments of a response are marked in its text."""

    TAGGED = "tagged"
    """In the contract's container: tags, by default."""
    UNTAGGED = "untagged"
    """In the plain convention: delimiters between the segments, as SFT is trained."""


class Violation(StrEnum):
    """The first rule an output breaks."""

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
    """A run of response text that lies in one segment; ``segment`` is a name of ``segment_names``."""

    segment: str
    text: str


@dataclass(frozen=True)
class ParsedResponse:
    """``values`` holds the segments when the output keeps the contract; otherwise ``violation`` says why not."""

    values: Mapping[str, str] = field(default_factory=dict)
    violation: Violation | None = None
    detail: str = ""

    @property
    def keeps_contract(self) -> bool:
        """True when the whole output follows the contract."""
        return self.violation is None


class Container(Protocol):
    """A way to write segments into one text. Blank optional segments are left out."""

    def write(self, values: Mapping[str, str]) -> list[Piece]:
        """The response as pieces; ``values`` holds the segments that are present."""
        ...

    def read(self, text: str) -> ParsedResponse:
        """Strictly read a whole output; values are not checked yet."""
        ...

    def search(self, text: str, name: str) -> str:
        """The best an accommodating reader finds for a segment in an output that breaks the contract."""
        ...
