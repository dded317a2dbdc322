"""The response contract.

A response exists in two forms (arXiv:2512.21017, section 3):

* ``tagged``: in the contract's container, by default ``<Thinking>reasoning</Thinking><Answer>answer</Answer>``
* ``untagged``: ``reasoning`` + delimiter + ``answer``, the plain convention that SFT trains

``render`` returns a response as pieces, one per delimiter and segment. Because it is tokenised piece by piece, the
segment of every token is known by construction. ``parse`` is the strict inverse and reports which rule an output
violates.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from sftkey_dist.contract.json_object import JsonObject
from sftkey_dist.contract.json_schema import NO_STRING, schema_problem
from sftkey_dist.contract.marks import Plain, Tags
from sftkey_dist.contract.parts import (
    END_OF_TURN,
    PROMPT,
    Container,
    ContractError,
    Form,
    ParsedResponse,
    Piece,
    Violation,
)
from sftkey_dist.contract.segment import Segment

_MAX_SEGMENT_IDS = 256
"""The store keeps each segment id in one byte."""


class ResponseContract(BaseModel):
    """Ordered, named segments of a response. The default is the paper's contract."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True)

    segments: tuple[Segment, ...] = (
        Segment(name="reasoning", tag="Thinking"),
        Segment(name="answer", tag="Answer", key=True),
    )
    """The segments, in the order in which a response must contain them."""
    container: Literal["tags", "json", "plain"] = "tags"
    """How the tagged form is written: with tags around each segment, as one JSON object, or with delimiters only."""
    delimiter: str = "\n#### "
    """Text between two segments in the untagged form and in the plain container."""
    special_token_tags: bool = False
    """Whether tags become special tokens of the tokenizer, so that each tag is one token with its own embedding,
    instead of ordinary text."""

    @model_validator(mode="after")
    def names_are_unique_and_one_is_key(self) -> Self:
        """Refuse contracts with ambiguous names, and contracts without a key segment for a key stage to train."""
        names = [segment.name for segment in self.segments]
        tags = [segment.tag_name for segment in self.segments]
        if len(set(names)) < len(names) or len(set(tags)) < len(tags):
            raise ValueError(f"segment names and tags must be unique, got names {names} and tags {tags}")
        if {PROMPT, END_OF_TURN, "tags", "all"} & set(names):
            raise ValueError(f"segment names {PROMPT!r}, {END_OF_TURN!r}, 'tags' and 'all' are reserved")
        if len(self.segment_names) > _MAX_SEGMENT_IDS:
            raise ValueError(f"at most {(_MAX_SEGMENT_IDS - 2) // 3} segments, got {len(self.segments)}")
        if not any(segment.key for segment in self.segments):
            raise ValueError("at least one segment must have key: true; otherwise no token is a key token")
        if self.special_token_tags and self.container != "tags":
            raise ValueError("special_token_tags needs container: tags")
        if sum(segment.value == "tool_call" for segment in self.segments) > 1:
            raise ValueError("at most one segment can have value: tool_call")
        return self

    @model_validator(mode="after")
    def plain_convention_can_be_read(self) -> Self:
        """Delimiters must be visible, and must distinguish optional segments."""
        delimiters = [segment.delimiter or self.delimiter for segment in self.segments[1:]]
        if self.segments[0].delimiter:
            delimiters.insert(0, self.segments[0].delimiter)
        if not all(delimiter.strip() for delimiter in delimiters):
            raise ValueError("delimiter must contain more than white space; otherwise answers cannot be found")
        some_optional = not all(segment.required for segment in self.segments)
        if some_optional and len(set(delimiters)) < len(delimiters):
            raise ValueError(
                "with optional segments, every segment needs its own delimiter; otherwise the plain convention cannot "
                "show which segment is absent; give each segment a `delimiter`"
            )
        return self

    @model_validator(mode="after")
    def labels_are_values_of_a_json_object(self) -> Self:
        """Refuse labels that no response could have, because their place in the object takes another type of value."""
        for segment in self.segments if self.container == "json" else ():
            labels = segment.check.one_of if segment.check and segment.value != "text" else None
            for label in labels or ():
                problem = schema_problem(label, {"type": NO_STRING})
                if problem:
                    raise ValueError(
                        f"segment {segment.name}: one_of {label!r} is no JSON value other than a string, which "
                        f"value: {segment.value} asks for ({problem}); correct the label, or set value: text"
                    )
        return self

    @property
    def segment_names(self) -> tuple[str, ...]:
        """The names of the segment ids: position i is the name of id i.

        The ids are the same in both forms; the delimiter before a segment has the id of the segment's opening tag.
        """
        names = [PROMPT, END_OF_TURN]
        for segment in self.segments:
            names += [f"{segment.name}.open", segment.name, f"{segment.name}.close"]
        return tuple(names)

    def of_form(self, form: Form) -> dict[str, Any]:
        """The settings that determine how responses are written and parsed in a form, as plain values."""
        has_tags = form is Form.TAGGED and self.container != "plain"
        unused = {"delimiter", "terminator"} if has_tags else {"tag", "value"}
        of_all = {"delimiter"} if has_tags else {"special_token_tags"}
        segments = {"__all__": unused}
        return self.model_dump(mode="json", exclude={**dict.fromkeys(of_all, True), "segments": segments})

    @property
    def key_segments(self) -> tuple[Segment, ...]:
        """The segments whose tokens are key tokens."""
        return tuple(segment for segment in self.segments if segment.key)

    @property
    def has_text_before_key(self) -> bool:
        """Whether a response can have a segment before its first key segment."""
        first = takewhile(lambda segment: not (segment.key and segment.required), self.segments)
        return any(not segment.key for segment in first)

    def num_before_key(self, names: Iterable[str]) -> int:
        """How many parts of a response come before the text of its first key segment.

        Args:
            names: the parts in order, each named as in `segment_names`.
        """
        keys = {segment.name for segment in self.key_segments}
        return sum(1 for _ in takewhile(lambda name: name not in keys, names))

    @property
    def tool_call_segment(self) -> str | None:
        """The segment of the calls of tools, if there is one."""
        return next((segment.name for segment in self.segments if segment.value == "tool_call"), None)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The tags that must be one token each in the tokenizer."""
        if not self.special_token_tags:
            return ()
        return tuple(mark for segment in self.segments for mark in (segment.opening, segment.closing))

    def render(self, values: Mapping[str, str], form: Form) -> list[Piece]:
        """Write a response as pieces whose texts, joined, are the response.

        Args:
            values: text of each segment. An optional segment may be missing or blank; it is then left out.
            form: tagged or untagged.

        Raises:
            ContractError: A segment is missing, empty or not allowed, or its text would be parsed differently.
        """
        present = {name: text for name, text in values.items() if text.strip()}
        for segment in self.segments:
            if segment.required and segment.name not in present:
                raise ContractError(f"empty_{segment.name}", f"the response has no {segment.name}")
            problem = segment.check and segment.name in present and segment.check.problem(present[segment.name])
            if problem:
                raise ContractError(f"invalid_{segment.name}", f"{segment.name}: {problem}")
        pieces = self._container(form).write(present)
        if not pieces:
            raise ContractError("empty_response", "the response has no segment")
        if not any(segment.name in present for segment in self.key_segments):
            raise ContractError("no_key_segment", f"the response has none of {self._names_of_keys}")
        parsed = self.parse("".join(piece.text for piece in pieces), form)
        if dict(parsed.values) != {segment.name: present[segment.name] for segment in self._among(present)}:
            mark = "tag" if self._container(form) is self.tagged_container and self.container == "tags" else "delimiter"
            raise ContractError(
                "delimiter_in_text",
                f"the response contains the text of a {mark} and would be read back differently ({form.value} form); "
                f"edit the row, or give the segment another `{mark}` in the contract",
            )
        return pieces

    def outlines(self, form: Form) -> list[list[Piece]]:
        """The pieces of a response with each choice of optional segments, all of them first; "0" stands for a value.

        There are two to the power of the number of optional segments.
        """
        present: list[tuple[str, ...]] = [()]
        for segment in self.segments:
            with_it = [(*names, segment.name) for names in present]
            present = with_it if segment.required else [*with_it, *present]
        keys = {segment.name for segment in self.key_segments}
        return [self._container(form).write(dict.fromkeys(names, "0")) for names in present if keys & set(names)]

    def parse(self, text: str, form: Form) -> ParsedResponse:
        """Parse a whole output strictly; only white space may occur outside the segments."""
        parsed = self._container(form).read(text)
        if not parsed.keeps_contract:
            return parsed
        if not any(segment.name in parsed.values for segment in self.key_segments):
            return ParsedResponse(violation=Violation.MISSING, detail=f"none of {self._names_of_keys}")
        for segment in self._among(parsed.values):
            value = parsed.values[segment.name]
            if not value.strip():
                return ParsedResponse(violation=Violation.EMPTY, detail=f"{segment.name} is empty")
            problem = segment.check.problem(value) if segment.check else None
            if problem:
                return ParsedResponse(violation=Violation.INVALID_VALUE, detail=f"{segment.name}: {problem}")
        return parsed

    def search(self, text: str, form: Form, name: str) -> str:
        """Find the most plausible text of a segment in an output that violates the contract."""
        return self._container(form).search(text, name).strip()

    @cached_property
    def tagged_container(self) -> Container:
        """The container of the tagged form."""
        if self.container == "plain":
            return self.plain_container
        return Tags(self.segments) if self.container == "tags" else JsonObject(self.segments)

    @cached_property
    def plain_container(self) -> Plain:
        """The container of the untagged form."""
        return Plain(self.segments, self.delimiter)

    def _container(self, form: Form) -> Container:
        return self.tagged_container if form is Form.TAGGED else self.plain_container

    @property
    def _names_of_keys(self) -> str:
        return ", ".join(segment.name for segment in self.key_segments)

    def _among(self, values: Mapping[str, str]) -> list[Segment]:
        return [segment for segment in self.segments if segment.name in values]
