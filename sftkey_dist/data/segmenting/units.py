"""Splits a response into units, which are lines and sentences; boxes and inline mathematics are never split."""

# ruff: noqa: RUF001

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftkey_dist.data.segmenting.answer import Span

_BREAK = re.compile(
    r"\n+|(?<=[。！？])|(?<![:：] [A-J]\.)(?<![:：]\*\* [A-J]\.)(?<=[.!?])[*_\"'”’)\]`]*\s+"
    r"|(?<!#)(?=####)|(?=<answer>(?s:.{0,400}?)</answer>)|(?<=<answer>)|(?=</answer>)|(?=<\|\w{1,30}\|>)|(?=</s>)",
    re.IGNORECASE,
)
_NEVER_BROKEN = re.compile(r"\$[^$\n]+\$|`[^`\n]+`")
_SAYS_NOTHING = re.compile(
    r"(?:\\end\{[^{}]*\}|\\[\])]|</answer>|</?think(?:ing)?>|<\|\w{1,30}\|>|</s>|\[/INST\]|[^\w\\<]|[<_])*+",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\s*(?:```|~~~)")
_BRACE = re.compile(r"(?P<box>\\boxed\s*\{)|\\.|(?P<sign>[{}])", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """A response from ``start`` on, with the contents of its boxes, and its units, which are lines and sentences."""

    response: str
    start: int
    boxes: Sequence[Span]
    units: Sequence[Span]

    def of(self, unit: Span) -> str:
        """The text of a unit; ``unit`` is a span of the response."""
        return self.response[unit[0] : unit[1]]


def is_mark(text: str) -> bool:
    """Whether a text has no content: white space, punctuation, ends of environments, end tokens, think tags."""
    return _SAYS_NOTHING.fullmatch(text) is not None


def boxes_in(response: str, start: int) -> Iterator[Span]:
    r"""Contents of the outermost ``\boxed{…}``, in one pass."""
    depth, opened = 0, -1
    for brace in _BRACE.finditer(response, start):
        if opened < 0 and brace["box"]:
            opened, depth = brace.end(), 1
        elif opened >= 0 and (brace["box"] or brace["sign"]):
            depth += -1 if brace["sign"] == "}" else 1
        if opened >= 0 and depth == 0:
            yield opened, brace.start()
            opened = -1


def units_in(response: str, start: int, boxes: Sequence[Span]) -> Iterator[Span]:
    """Lines and sentences with content; boxes and inline mathematics are never split."""
    masked = _NEVER_BROKEN.sub(_mask, _masked(response, boxes))
    begin = start
    for found in (*_BREAK.finditer(masked, start), None):
        end = found.start() if found else len(masked)
        unit = masked[begin:end]
        if not is_mark(unit) or _FENCE.match(unit):
            yield begin + len(unit) - len(unit.lstrip()), end - (len(unit) - len(unit.rstrip()))
        begin = found.end() if found else end


def _masked(response: str, boxes: Sequence[Span]) -> str:
    pieces, done = [], 0
    for start, end in boxes:
        pieces += [response[done:start], "x" * (end - start)]
        done = end
    return "".join((*pieces, response[done:]))


def _mask(found: re.Match[str]) -> str:
    return "x" * len(found.group())
