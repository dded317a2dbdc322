"""Finds the closing part of a response: the statements of an answer at its end.

A response is read from its end, line by line and sentence by sentence. Sign-offs and marks are skipped, and statements
of an answer ("#### 42", a box, "The answer is 42.", "(B)") are collected. The first other text ends the closing part.
Each statement is evidence for an answer, and records its own problem, if it has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sftkey_dist.data.segmenting import wording
from sftkey_dist.data.segmenting.answer import Span
from sftkey_dist.data.segmenting.statements import Statement, below_a_lead, statements_in
from sftkey_dist.data.segmenting.units import Text, boxes_in, units_in

TEXT_AFTER_ANSWER = "text_after_answer"
_LONGEST_SIGN_OFF = 240
_SENTENCES_TO_SEARCH = 60
"""Number of sentences before the closing part that are searched for a candidate to show to a person."""
_MAX_STATEMENTS = 50


@dataclass(frozen=True)
class Closing:
    """The closing part of a response.

    Attributes:
        statements: statements in their order; their problem is ``text_after_answer`` if other text follows them.
        end: end of the response, without sign-offs.
        boxes: spans of the contents of all boxes.
        problem: why the closing part as a whole is doubtful; "" if it is not.
    """

    statements: Sequence[Statement]
    end: int
    boxes: Sequence[Span] = ()
    problem: str = ""


def read_closing(response: str, start: int) -> Closing:
    """Find the closing part of a response from ``start`` on."""
    boxes = tuple(boxes_in(response, start))
    text = Text(response, start, boxes, tuple(units_in(response, start, boxes)))
    units, end = _without_sign_offs(text)
    statements, rest = _closing_statements(text, units)
    if not statements:
        return Closing(_stated_before(text, units), end, boxes)
    return Closing(statements, end, boxes, "runs_on" if _runs_on(text, units[:rest]) else "")


def _closing_statements(text: Text, units: Sequence[Span]) -> tuple[list[Statement], int]:
    """The statements at the end, and the number of units before them."""
    statements: list[Statement] = []
    rest = len(units)
    while rest and len(statements) < _MAX_STATEMENTS:
        found, first = _read_back(text, units, rest - 1)
        if statements and any(one.problem for one in found):
            break  # this unit is part of the reasoning that led to the statements
        if not found and not _is_sign_off(text.of(units[rest - 1])):
            break
        statements = [*found, *statements]
        rest = first
    return statements, rest


def _read_back(text: Text, units: Sequence[Span], last: int) -> tuple[list[Statement], int]:
    """The statements in a unit, and the first unit that belongs to them."""
    found = statements_in(text, units[last])
    first = last
    if not found and last and wording.LEAD_ALONE.fullmatch(text.of(units[last - 1])):
        found = below_a_lead(text, units[last], units[last - 1])
    if found:
        while first and wording.LEAD_ALONE.fullmatch(text.of(units[first - 1])):
            first -= 1
        found = [_led_by(text, units[first : last + 1], one) for one in found]
    return found, first


def _led_by(text: Text, units: Sequence[Span], statement: Statement) -> Statement:
    """Extend a statement by the lines above that announce it; tags around it belong to no segment."""
    is_tagged = any(text.of(unit).casefold() == "<answer>" for unit in units)
    return replace(
        statement,
        start=min(statement.start, units[0][0]),
        is_led=statement.is_led or len(units) > 1,
        is_quoted=statement.is_quoted and not is_tagged,
    )


def _stated_before(text: Text, units: Sequence[Span]) -> list[Statement]:
    """The last statement that is followed by other text."""
    for place in range(len(units) - 1, max(0, len(units) - _SENTENCES_TO_SEARCH) - 1, -1):
        found = [one for one in _read_back(text, units, place)[0] if one.problem != "heading"]
        if found:
            return [replace(one, problem=TEXT_AFTER_ANSWER) for one in found]
    return []


def _runs_on(text: Text, units: Sequence[Span]) -> bool:
    """Whether another question begins after a statement of an answer."""
    for place, unit in enumerate(units[1:], 1):
        if wording.RUNS_ON.match(text.of(unit)) and _read_back(text, units, place - 1)[0]:
            return True
    return False


def _without_sign_offs(text: Text) -> tuple[Sequence[Span], int]:
    """The units before the sign-offs at the end, and the end of the response without them."""
    left, end = len(text.units), len(text.response)
    while left and _is_sign_off(text.of(text.units[left - 1])) and not statements_in(text, text.units[left - 1]):
        left -= 1
        end = text.units[left][0]
    return text.units[:left], end


def _is_sign_off(unit: str) -> bool:
    plain = unit.strip(" \t*_#>¡!😊🎉-")
    return (
        len(unit) <= _LONGEST_SIGN_OFF
        and wording.SIGN_OFF.fullmatch(plain) is not None
        and wording.TAKES_BACK.search(plain) is None
    )
