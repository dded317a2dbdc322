"""Finds statements of an answer in a unit of a response: "#### 42", a box, "The answer is 42.", "(B)".

Each statement is evidence for an answer, and records its own problem, if it has one.
"""

# ruff: noqa: RUF001

import re
from collections.abc import Callable
from dataclasses import dataclass

from sftkey_dist.data.segmenting import wording
from sftkey_dist.data.segmenting.answer import (
    Span,
    emphasised_part,
    narrow,
    same_answer,
    why_no_answer,
)
from sftkey_dist.data.segmenting.units import Text

_HASH_MARK = re.compile(r"####\s*(?=[^\s#])")
_BARE = re.compile(r"\(?[A-J]\)?[.)]?|[$€£¥\\]*\s?[-+−]?[\d.,/:]*\d\s?[%°]?(?:\s[^\W\d]+){0,2}")
_BULLET = re.compile(r"[-•*+]\s+")
_FEW_WORDS = 4
_LONGEST_SENTENCE = 600
"""Number of characters at the end of a line or sentence that are searched for a statement."""
_OPTION_LINE = re.compile(r"\s*\(?[B-J][.):：]")
_BARE_OPTION = len("(B)")


@dataclass(frozen=True)
class Statement:
    """Evidence for an answer.

    Attributes:
        rule: name of the rule that finds it.
        start: start of the statement, including its lead.
        answer: the span of the answer.
        problem: why it is doubtful, as a short, stable name; "" if it is not.
        is_quoted: whether the answer is inside a sentence that belongs to the reasoning.
        is_led: whether the text says that this is the answer.
    """

    rule: str
    start: int
    answer: Span
    problem: str = ""
    is_quoted: bool = False
    is_led: bool = False


def statements_in(text: Text, unit: Span) -> list[Statement]:
    """The statements in a unit."""
    found = (find(text, unit) for find in _FINDERS)
    return [statement for statement in found if statement is not None]


def below_a_lead(text: Text, unit: Span, lead: Span) -> list[Statement]:
    """Find a short answer on the line below "**Final Answer**" or "The answer is:"."""
    bullet = _BULLET.match(text.response, *unit)
    answer = narrow(text.response, (bullet.end() if bullet else unit[0], unit[1]))
    value = text.response[slice(*answer)]
    if not value or len(value.split()) > _FEW_WORDS:
        return []
    return [Statement("answer_is", lead[0], answer, why_no_answer(value), is_led=True)]


def _hash_marks(text: Text, unit: Span) -> Statement | None:
    """Find GSM8K's ``#### 42``, unless it is a heading."""
    mark = _HASH_MARK.match(text.response, *unit)
    if mark is None or _box_in(text, unit) or wording.LEAD.search(text.response, *unit):
        return None
    answer = narrow(text.response, (mark.end(), unit[1]))
    value = text.response[slice(*answer)]
    if wording.HEADING.fullmatch(value):
        return None
    marks_headings = text.response.count("####", text.start) > 1
    is_doubtful = marks_headings or len(value.split()) > _FEW_WORDS + 1
    problem = "heading" if is_doubtful and not _BARE.fullmatch(value) else why_no_answer(value)
    return Statement("hash_marks", unit[0], answer, problem, is_led=True)


def _boxed(text: Text, unit: Span) -> Statement | None:
    r"""Find ``\boxed{42}``, which is quoted from the reasoning."""
    boxes = _box_in(text, unit)
    if not boxes:
        return None
    answers = [narrow(text.response, box) for box in boxes]
    values = [text.response[slice(*answer)] for answer in answers]
    around = text.response[unit[0] : boxes[0][0]], text.response[boxes[-1][1] : unit[1]]
    problem = why_no_answer(values[-1], is_mathematics=True) or _speaks_against(*around)
    if any(not same_answer(value, values[-1]) for value in values):
        problem = "several_answers"
    is_led = wording.LEAD.search(around[0]) is not None
    return Statement("boxed", unit[0], answers[-1], problem, is_quoted=True, is_led=is_led)


def _speaks_against(before: str, after: str) -> str:
    """The problem that the words around a box indicate; "" if there is none."""
    before = before[-_LONGEST_SENTENCE:].rpartition("\\boxed")[0].rstrip(" $*({[\\")
    if wording.NEGATED_BEFORE.search(before):
        return "negated"
    if wording.HEDGED.search(before[-60:]) or wording.HEDGED.search(after[:60]):
        return "hedged"
    if after.rstrip(" $*)").endswith(("?", "？")):
        return "question"
    return ""


def _answer_is(text: Text, unit: Span) -> Statement | None:
    """Find a sentence such as "The answer is 42." or "Answer: B", or ``A: 42``."""
    lead = _lead(text, unit)
    if lead is None:
        return None
    marks = len(lead.group()) - len(lead.group().rstrip("*_`"))
    value = (lead.end() - marks, unit[1])
    part = emphasised_part(text.response, value)
    answer = narrow(text.response, part or value)
    boxes = [narrow(text.response, box) for box in _box_in(text, value)]
    if answer[0] >= answer[1] or (boxes and answer not in boxes):
        return None
    before, said = text.response[max(unit[0], lead.start() - _LONGEST_SENTENCE) : lead.start()], text.of(answer)
    problem = why_no_answer(said, is_mathematics=bool(boxes)) or _why_uncertain(before, lead.group(), said)
    begins = unit[0] if wording.CONNECTION.fullmatch(before) else lead.start()
    return Statement("answer_is", begins, answer, problem, is_quoted=part is not None, is_led=True)


def _lead(text: Text, unit: Span) -> re.Match[str] | None:
    """The last words of a unit that announce an answer."""
    letter = None if _lists_options(text, unit) else wording.LETTER_LEAD.match(text.response, *unit)
    start = max(unit[0], unit[1] - _LONGEST_SENTENCE)
    return letter or max(wording.LEAD.finditer(text.response, start, unit[1]), key=re.Match.start, default=None)


def _why_uncertain(before: str, lead: str, answer: str) -> str:
    """The problem that the words before an answer indicate; "" if there is none."""
    clause = re.split(r"[,;:，；：]", before)[-1]
    is_somebodys = wording.MODIFIED.fullmatch(before) and not wording.ENDS_CONNECTED.search(before)
    checks = (
        wording.UNCERTAIN_LEAD.search(before + lead),
        wording.UNCERTAIN_CLAUSE.search(clause),
        is_somebodys and not wording.WITH_ARTICLE.match(lead),
        # "The closest value is" announces a value, not the option that contains it.
        "closest" in lead.casefold() and not wording.STARTS_WITH_AN_OPTION.match(answer),
    )
    return "uncertain" if any(checks) else ""


def _option_letter(text: Text, unit: Span) -> Statement | None:
    """Find a line that is an option ("B", "(B)", "Option B"), or a sentence that chooses one ("Hence B is correct")."""
    if unit[1] - unit[0] > _LONGEST_SENTENCE:
        return None
    option = wording.OPTION.fullmatch(text.response, *unit)
    if option is not None and (option["word"] or (_begins_a_line(text, unit) and not _is_a_word(option.group()))):
        return Statement("option_letter", unit[0], option.span("answer"), is_led=len(option.group()) > _BARE_OPTION)
    chosen = wording.CHOSEN_OPTION.fullmatch(text.response, *unit)
    if chosen is None:
        return None
    return Statement("option_letter", unit[0], chosen.span("answer" if chosen["answer"] else "other"), is_led=True)


def _begins_a_line(text: Text, unit: Span) -> bool:
    line = text.response.rfind("\n", text.start, unit[0]) + 1
    return not text.response[max(line, text.start) : unit[0]].strip(" *_>#")


def _is_a_word(option: str) -> bool:
    """A lower-case letter without brackets is more often a variable than an option."""
    return option.strip(" *_.") in tuple("abcdefghij")


def _lists_options(text: Text, unit: Span) -> bool:
    """Whether ``A:`` belongs to a list of options, because another option is on the line above."""
    above = text.response[max(text.start, unit[0] - _LONGEST_SENTENCE) : unit[0]].rstrip().rpartition("\n")[2]
    return _OPTION_LINE.match(above) is not None


def _box_in(text: Text, span: Span) -> list[Span]:
    return [box for box in text.boxes if span[0] <= box[0] and box[1] <= span[1]]


_FINDERS: tuple[Callable[[Text, Span], Statement | None], ...] = (_hash_marks, _boxed, _answer_is, _option_letter)
