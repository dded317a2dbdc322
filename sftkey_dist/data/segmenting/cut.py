"""The result of segmenting a response: the text of each segment, or why there is none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sftkey_dist.data.segmenting.answer import (
    Span,
)

REASONING, ANSWER = "reasoning", "answer"

Spans = Mapping[str, Span]


@dataclass(frozen=True)
class NotCut:
    """Why a response is not segmented; ``reason`` is a short, stable name for counting."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Candidate:
    """An answer that a rule has found."""

    rule: str
    answer: str


@dataclass(frozen=True)
class Cut:
    """The segments of a response.

    Attributes:
        values: text of each segment.
        rule: name of the rule, or other method, that found them.
        doubt: why a person should review them; None if they are accepted.
        candidates: all answers that were found.
        removed: texts that belong to no segment, by kind.
    """

    values: Mapping[str, str]
    rule: str
    doubt: NotCut | None = None
    candidates: tuple[Candidate, ...] = ()
    removed: Mapping[str, str] = field(default_factory=dict)


def uncovered(response: str, spans: Spans, is_separator: Callable[[str], bool]) -> str:
    """A message about text outside all spans that is not a separator and would be lost; "" if there is none."""
    end = 0
    for start, stop in (*sorted(spans.values()), (len(response), len(response))):
        gap = response[end:start]
        if gap and not is_separator(gap):
            return f"{gap[:60]!r} lies outside the segments"
        end = max(end, stop)
    return ""
