"""Verifies the segments of a person or a model, who quote texts of the response instead of naming positions."""

# ruff: noqa: RUF001

import re
from collections.abc import Iterator, Mapping, Sequence

from sftkey_dist.contract import ContractError, Form, ResponseContract
from sftkey_dist.data.segmenting.answer import Span
from sftkey_dist.data.segmenting.cut import uncovered
from sftkey_dist.data.segmenting.wording import CONNECTOR, LEAD, LEAD_ALONE

_CONNECTING_WORDS = r"(?:the|my|final|correct|answer|option|choice|is|so|therefore|thus|hence)"
_PUNCTUATION = r"""[\s.,:;!?"'`*_()\[\]{}$#|]"""
_TAGS = re.compile(r"</?(?:think|thinking|thought|reasoning|answer)>|<\|\w{1,30}\|>|</s>", re.IGNORECASE)
_MARKS = re.compile(
    r"^\s*(?:[-•+]\s+|-{3,}\s*$|A\s*[:：])|[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff•➡>。！：，、]", re.MULTILINE
)
_SEPARATORS = re.compile(rf"{_PUNCTUATION}*(?:{_CONNECTING_WORDS}{_PUNCTUATION}+)*", re.IGNORECASE)
# Characters that may not be next to a quotation, as in 5 from -5, √5 or 15. Scripts without spaces may be split.
_GOES_ON_BEFORE = re.compile(r"(?a:\w)|[+\-\u2212\u00b1\u221a/^.,%]")
_GOES_ON_AFTER = re.compile(r"(?a:\w)|[/^%]|[.,]\d")


def why_refused(
    values: Mapping[str, str], response: str, contract: ResponseContract, outside: Sequence[str] = ()
) -> str:
    """Why segments are not accepted; "" if they are.

    Args:
        values: text of each segment.
        response: the response that they were taken from.
        contract: the contract, which must be able to write them.
        outside: texts that may lie outside the segments, in addition to punctuation and words like "the answer is".
    """
    hidden = [(start, start + len(text)) for text in outside for start in [response.rfind(text)] if text and start >= 0]
    problems = [_why_not_placed(values, response, outside, taken) for taken in ((), hidden)]
    return problems[0] if all(problems) else why_not_writable(values, contract)


def _why_not_placed(values: Mapping[str, str], response: str, outside: Sequence[str], hidden: Sequence[Span]) -> str:
    """Why values outside the hidden spans do not cover a response; "" if they do."""
    spans: dict[str, Span] = {}
    for name, value in sorted(values.items(), key=lambda item: -len(item[1])):
        if not value.strip() or value not in response:
            return f"{name} {value[:40]!r} is not in the response"
        span = _place(value, response, list(spans.values()), hidden)
        if span is None:
            return f"{name} {value[:40]!r} is in the response only as a part of something else"
        spans[name] = span

    def is_separator(text: str) -> bool:
        for allowed in outside:
            text = text.replace(allowed, " ")
        return _SEPARATORS.fullmatch(_without_leads(text)) is not None

    return uncovered(response, spans, is_separator)


def _without_leads(text: str) -> str:
    """A text without the phrases that announce an answer, in any language that the rules support."""
    text = _MARKS.sub(" ", _TAGS.sub(" ", text))
    lines = (" " if LEAD_ALONE.fullmatch(line) else line for line in text.split("\n"))
    return CONNECTOR.sub(" ", LEAD.sub(" ", "\n".join(lines)))


def _place(value: str, response: str, taken: Sequence[Span], hidden: Sequence[Span]) -> Span | None:
    """Position of a value: its last occurrence outside all others or, if there is none, inside one as a whole word."""
    quoted = None
    for start in _places(value, response):
        end = start + len(value)
        if not all(end <= first or last <= start for first, last in hidden):
            continue
        if all(end <= first or last <= start for first, last in taken):
            return start, end
        if quoted is None and any(first <= start and end <= last for first, last in taken):
            goes_on = _GOES_ON_BEFORE.match(response, start - 1) if start else None
            quoted = None if goes_on or _GOES_ON_AFTER.match(response, end) else (start, end)
    return quoted


def _places(value: str, response: str) -> Iterator[int]:
    """Start positions of a value, the last one first."""
    start = response.rfind(value)
    while start >= 0:
        yield start
        start = response.rfind(value, 0, start + len(value) - 1)


def why_not_writable(values: Mapping[str, str], contract: ResponseContract) -> str:
    """Why the contract cannot write the segments; "" if it can."""
    unknown = sorted(set(values) - {segment.name for segment in contract.segments})
    if unknown:
        return f"the contract has no segment {unknown[0]!r}"
    try:
        contract.render(values, Form.TAGGED)
    except ContractError as error:
        return f"{error.reason}: {error}"
    return ""
