"""Segments with literal marks: tags around each segment, or a delimiter before each.

A text is cut at its marks only. Parsing is strict and takes linear time: every mark must occur exactly once and in
order, and only white space may lie between two segments.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sftkey_dist.contract.parts import THINKING_TAGS, ParsedResponse, Piece, Violation
from sftkey_dist.contract.segment import Segment


@dataclass(frozen=True)
class Tags:
    """Tags around each segment: ``<Thinking>reasoning</Thinking><Answer>answer</Answer>``."""

    segments: tuple[Segment, ...]

    def write(self, values: Mapping[str, str]) -> list[Piece]:
        """See `Container`."""
        pieces = []
        for segment in self.segments:
            if segment.name in values:
                pieces += [
                    Piece(f"{segment.name}.open", segment.opening),
                    Piece(segment.name, values[segment.name]),
                    Piece(f"{segment.name}.close", segment.closing),
                ]
        return pieces

    def read(self, text: str) -> ParsedResponse:
        """See `Container`."""
        text = _with_opening(text, self.segments[0].opening)
        found = list(self._pattern.finditer(text))
        names = {match.group() for match in found}
        present = [s for s in self.segments if s.required or {s.opening, s.closing} & names]
        expected = [mark for segment in present for mark in (segment.opening, segment.closing)]
        if [match.group() for match in found] != expected:
            return _explain_tags([match.group() for match in found], expected)
        if not expected:
            return ParsedResponse(violation=Violation.MISSING, detail="no segment")
        openings, closings = found[::2], found[1::2]
        gaps = [(0, openings[0].start()), *zip(_ends(closings), (m.start() for m in openings[1:]), strict=False)]
        if any(text[start:end].strip() for start, end in gaps):
            return ParsedResponse(violation=Violation.TEXT_OUTSIDE, detail="text before or between the tags")
        if text[closings[-1].end() :].strip():
            return ParsedResponse(violation=Violation.TRAILING_TEXT, detail=f"text after {expected[-1]}")
        spans = zip(present, openings, closings, strict=True)
        return ParsedResponse({segment.name: text[start.end() : end.start()] for segment, start, end in spans})

    def search(self, text: str, name: str) -> str:
        """See `Container`: the text after the last opening tag that is followed by any text, up to the next tag.

        Without the opening tag of a required segment, it is the text after the last closing tag of the segments before.
        Case is ignored.
        """
        place = next(i for i, segment in enumerate(self.segments) if segment.name == name)
        segment = self.segments[place]
        before = self.segments[:place] if segment.required else ()
        starts = _ends_of([segment.opening], text)
        other_starts = _ends_of([each.closing for each in before], text)[-1:] or [0]
        written = _last_written([self._until_tag(text, start) for start in starts or other_starts])
        return _without_beginning_of(segment.closing, written if starts else written or text)

    def _until_tag(self, text: str, start: int) -> str:
        tag = self._pattern_in_any_case.search(text, start)
        return text[start : tag.start() if tag else len(text)]

    @cached_property
    def _pattern_in_any_case(self) -> re.Pattern[str]:
        return re.compile(self._pattern.pattern, re.IGNORECASE)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of([mark for segment in self.segments for mark in (segment.opening, segment.closing)])


@dataclass(frozen=True)
class Plain:
    """Delimiters only: ``reasoning`` + delimiter + ``answer``. The first segment has a delimiter only if it sets one,
    and a segment has a terminator only if it sets one."""

    segments: tuple[Segment, ...]
    delimiter: str

    def write(self, values: Mapping[str, str]) -> list[Piece]:
        """See `Container`; the delimiter before a segment corresponds to its opening tag, the terminator to its
        closing tag."""
        pieces = []
        for segment, delimiter in zip(self.segments, self._delimiters, strict=True):
            if segment.name in values:
                pieces += [
                    Piece(f"{segment.name}.open", delimiter),
                    Piece(segment.name, values[segment.name]),
                    Piece(f"{segment.name}.close", segment.terminator or ""),
                ]
        return [piece for piece in pieces if piece.text]

    def read(self, text: str) -> ParsedResponse:
        """See `Container`."""
        values: dict[str, str] = {}
        text = _with_opening(text, self._delimiters[0])
        before, start = self._until_delimiter(text, 0)
        place = -1 if self._delimiters[0] else 0
        if place == 0:
            values[self.segments[0].name] = before
        elif before.strip():
            return ParsedResponse(violation=Violation.TEXT_OUTSIDE, detail=f"text before {self._delimiters[0]!r}")
        while mark := self._pattern.match(text, start):
            following = self._place_after(place, mark.group())
            if following is None:
                return self._explain(place, mark.group())
            place = following
            values[self.segments[place].name], start = self._until_delimiter(text, mark.end())
        missing = next((s for s in self.segments[place + 1 :] if s.required), None)
        if missing is not None:
            delimiter = self._delimiters[self.segments.index(missing)]
            return ParsedResponse(violation=Violation.MISSING, detail=f"no delimiter {delimiter!r}")
        first = self.segments[0]
        if not first.required and not values.get(first.name, "").strip():
            values.pop(first.name, None)  # no text before the first delimiter: the optional segment is absent
        return self._without_terminators(values)

    def search(self, text: str, name: str) -> str:
        """See `Container`: the text after the last delimiter of the segment that is followed by any text."""
        place = next(i for i, segment in enumerate(self.segments) if segment.name == name)
        delimiter = self._delimiters[place].strip()
        if not delimiter:
            return text
        if delimiter not in text:
            return text
        found = [self._until_delimiter(after, 0)[0] for after in text.split(delimiter)[1:]]
        terminator = (self.segments[place].terminator or "").strip()
        return _last_written([text.partition(terminator)[0] if terminator else text for text in found])

    @cached_property
    def _delimiters(self) -> tuple[str, ...]:
        first, *rest = self.segments
        return (first.delimiter or "", *(segment.delimiter or self.delimiter for segment in rest))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of([delimiter for delimiter in self._delimiters if delimiter])

    def _without_terminators(self, values: Mapping[str, str]) -> ParsedResponse:
        """The values without the terminators that must end them."""
        inner = dict(values)
        for segment in self.segments:
            if segment.terminator and segment.name in inner:
                text, terminator, after = inner[segment.name].rpartition(segment.terminator)
                if not terminator:
                    return ParsedResponse(
                        violation=Violation.MISSING, detail=f"no {segment.terminator.strip()!r} after {segment.name}"
                    )
                if after.strip():
                    return ParsedResponse(
                        violation=Violation.TRAILING_TEXT, detail=f"text after {segment.terminator.strip()!r}"
                    )
                inner[segment.name] = text
        return ParsedResponse(inner)

    def _until_delimiter(self, text: str, start: int) -> tuple[str, int]:
        """The text up to the next delimiter, and the position at which that delimiter begins."""
        match = self._pattern.search(text, start)
        end = match.start() if match else len(text)
        return text[start:end], end

    def _place_after(self, place: int, delimiter: str) -> int | None:
        """Index of the segment that a delimiter begins; only optional segments may be skipped. None if there is
        none."""
        for i in range(place + 1, len(self.segments)):
            if self._delimiters[i] == delimiter:
                return i
            if self.segments[i].required:
                return None
        return None

    def _explain(self, place: int, delimiter: str) -> ParsedResponse:
        if delimiter in self._delimiters[place + 1 :]:
            missing = next(s for s in self.segments[place + 1 :] if s.required)
            return ParsedResponse(violation=Violation.MISSING, detail=f"{missing.name} before {delimiter!r}")
        if delimiter == self._delimiters[place] or len(set(self._delimiters[1:])) == 1:
            return ParsedResponse(violation=Violation.DUPLICATED, detail=f"several {delimiter!r}")
        return ParsedResponse(violation=Violation.OUT_OF_ORDER, detail=f"{delimiter!r} comes too late")


def _with_opening(text: str, opening: str) -> str:
    """The output with the mark of its first segment. It lacks a thinking tag with which the chat template has ended the
    prompt."""
    opened_by_prompt = opening.strip() in THINKING_TAGS and opening.strip() not in text
    return opening + text if opened_by_prompt else text


def _last_written(texts: Sequence[str]) -> str:
    """The last text that is not blank, so that a mark repeated at the end of an output does not discard the answer."""
    return next((text for text in reversed(texts) if text.strip()), "")


def _ends_of(tags: Sequence[str], text: str) -> list[int]:
    """Where tags end in a text, in any case."""
    return _ends(list(re.finditer(_any_of(tags).pattern, text, re.IGNORECASE))) if tags else []


def _without_beginning_of(mark: str, text: str) -> str:
    """The text without the beginning of a mark, two characters or more, at which a limit of tokens may have cut it."""
    text = text.rstrip()
    begun = next((mark[:n] for n in range(len(mark) - 1, 1, -1) if text.endswith(mark[:n])), "")
    return text.removesuffix(begun)


def _any_of(marks: Sequence[str]) -> re.Pattern[str]:
    """A pattern for any mark. Longer marks come first, because a mark may be a prefix of another one."""
    return re.compile("|".join(map(re.escape, sorted(set(marks), key=lambda mark: (-len(mark), mark)))))


def _ends(matches: Sequence[re.Match[str]]) -> list[int]:
    return [match.end() for match in matches]


def _explain_tags(found: list[str], expected: list[str]) -> ParsedResponse:
    """Report the first rule that the sequence of tags in an output violates."""
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
