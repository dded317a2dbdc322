"""The response contract: ordered named segments, how they are written and how an output is read back.

A response exists in two forms (arXiv:2512.21017, section 3):

* ``tagged``    ``<Thinking>reasoning</Thinking><Answer>answer</Answer>``
* ``untagged``  ``reasoning`` + delimiter + ``answer``, the plain convention that SFT is trained on

``render`` cuts a response into pieces, one per delimiter and segment, so that whoever tokenises it piece by
piece knows the segment of every token by construction. ``parse`` is its strict inverse and says which rule an
output breaks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PROMPT = "prompt"
END_OF_TURN = "end_of_turn"


class ContractError(ValueError):
    """A response cannot be written under the contract; ``reason`` is a short stable name for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Form(StrEnum):
    """How the segments of a response are marked in its text."""

    TAGGED = "tagged"
    UNTAGGED = "untagged"


class Violation(StrEnum):
    """The first rule an output breaks."""

    MISSING = "missing"
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out_of_order"
    NESTED = "nested"
    EMPTY = "empty"
    TEXT_OUTSIDE = "text_outside"


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


class Segment(BaseModel):
    """One named part of a response."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name used in data, weights and metrics."""
    tag: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Tag that encloses it in the tagged form: `<Tag>…</Tag>`."""
    key: bool = False
    """Whether the tokens of this segment are key tokens, the ones a key stage trains."""

    @property
    def opening(self) -> str:
        """The opening tag."""
        return f"<{self.tag}>"

    @property
    def closing(self) -> str:
        """The closing tag."""
        return f"</{self.tag}>"


class ResponseContract(BaseModel):
    """Ordered named segments; the default is the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    segments: tuple[Segment, ...] = (
        Segment(name="reasoning", tag="Thinking"),
        Segment(name="answer", tag="Answer", key=True),
    )
    """The segments in the order in which a response must contain them."""
    delimiter: str = "\n#### "
    """What stands between two segments in the untagged form."""

    @model_validator(mode="after")
    def names_are_unique_and_one_is_key(self) -> Self:
        """Refuse contracts that cannot be told apart or that leave a key stage nothing to train."""
        names = [segment.name for segment in self.segments]
        tags = [segment.tag for segment in self.segments]
        if len(set(names)) < len(names) or len(set(tags)) < len(tags):
            raise ValueError(f"segment names and tags must be unique, got names {names} and tags {tags}")
        if {PROMPT, END_OF_TURN, "tags"} & set(names):
            raise ValueError(f"segment names {PROMPT!r}, {END_OF_TURN!r} and 'tags' are reserved")
        if not any(segment.key for segment in self.segments):
            raise ValueError("at least one segment must have key: true, else no token is a key token")
        if not self.delimiter.strip():
            raise ValueError("delimiter must contain more than white space, else answers cannot be found")
        return self

    @property
    def segment_names(self) -> tuple[str, ...]:
        """The name of every segment id: position i is the name of id i.

        Ids are the same in both forms; the delimiter before a segment takes the id of its opening tag.
        """
        names = [PROMPT, END_OF_TURN]
        for segment in self.segments:
            names += [f"{segment.name}.open", segment.name, f"{segment.name}.close"]
        return tuple(names)

    @property
    def key_segments(self) -> tuple[Segment, ...]:
        """The segments whose tokens are key tokens."""
        return tuple(segment for segment in self.segments if segment.key)

    def render(self, values: Mapping[str, str], form: Form) -> list[Piece]:
        """Write a response as pieces whose texts, joined, are the response.

        Raises:
            ContractError: a segment is missing, empty, or its text would be read back differently.
        """
        for segment in self.segments:
            if not values.get(segment.name, "").strip():
                raise ContractError(f"empty_{segment.name}", f"the response has no {segment.name}")
        pieces = self._tagged(values) if form is Form.TAGGED else self._untagged(values)
        parsed = self.parse("".join(piece.text for piece in pieces), form)
        if any(parsed.values.get(segment.name) != values[segment.name] for segment in self.segments):
            raise ContractError(
                "delimiter_in_text",
                f"the response contains the text of a tag or delimiter and would be read back differently "
                f"({form.value} form)",
            )
        return pieces

    def parse(self, text: str, form: Form) -> ParsedResponse:
        """Read a whole output strictly; only white space may stand outside the segments."""
        return self._parse_tagged(text) if form is Form.TAGGED else self._parse_untagged(text)

    def _tagged(self, values: Mapping[str, str]) -> list[Piece]:
        pieces = []
        for segment in self.segments:
            pieces += [
                Piece(f"{segment.name}.open", segment.opening),
                Piece(segment.name, values[segment.name]),
                Piece(f"{segment.name}.close", segment.closing),
            ]
        return pieces

    def _untagged(self, values: Mapping[str, str]) -> list[Piece]:
        first, *rest = self.segments
        pieces = [Piece(first.name, values[first.name])]
        for segment in rest:
            pieces += [
                Piece(f"{segment.name}.open", self.delimiter),
                Piece(segment.name, values[segment.name]),
            ]
        return pieces

    def _parse_tagged(self, text: str) -> ParsedResponse:
        marks = [mark for segment in self.segments for mark in (segment.opening, segment.closing)]
        found = [match.group() for match in re.finditer("|".join(map(re.escape, marks)), text)]
        if found != marks:
            return _explain_marks(found, marks)
        pattern = r"\s*".join(
            f"{re.escape(segment.opening)}(.*?){re.escape(segment.closing)}" for segment in self.segments
        )
        match = re.fullmatch(rf"\s*{pattern}\s*", text, flags=re.DOTALL)
        if match is None:
            return ParsedResponse(violation=Violation.TEXT_OUTSIDE, detail="text outside the tags")
        return self._with_values(match.groups())

    def _parse_untagged(self, text: str) -> ParsedResponse:
        parts = text.split(self.delimiter)
        if len(parts) < len(self.segments):
            return ParsedResponse(violation=Violation.MISSING, detail=f"no delimiter {self.delimiter!r}")
        if len(parts) > len(self.segments):
            return ParsedResponse(violation=Violation.DUPLICATED, detail=f"several {self.delimiter!r}")
        return self._with_values(parts)

    def _with_values(self, texts: tuple[str, ...] | list[str]) -> ParsedResponse:
        for segment, text in zip(self.segments, texts, strict=True):
            if not text.strip():
                return ParsedResponse(violation=Violation.EMPTY, detail=f"{segment.name} is empty")
        return ParsedResponse({s.name: text for s, text in zip(self.segments, texts, strict=True)})


def _explain_marks(found: list[str], expected: list[str]) -> ParsedResponse:
    """Name the first rule that the sequence of tags in an output breaks."""
    missing = [mark for mark in expected if mark not in found]
    if missing:
        return ParsedResponse(violation=Violation.MISSING, detail=f"no {missing[0]}")
    repeated = [mark for mark in expected if found.count(mark) > 1]
    if repeated:
        return ParsedResponse(violation=Violation.DUPLICATED, detail=f"several {repeated[0]}")
    depth = 0
    for mark in found:
        depth += -1 if mark.startswith("</") else 1
        if depth > 1:
            return ParsedResponse(violation=Violation.NESTED, detail=f"{mark} inside another segment")
    return ParsedResponse(violation=Violation.OUT_OF_ORDER, detail=" ".join(found))
