"""Finds the closing part of a response: the statements of an answer at its end.

A response is read from its end, line by line and sentence by sentence. Sign-offs and marks are skipped, and statements
of an answer ("#### 42", a box, "The answer is 42.", "(B)") are collected. The first other text ends the closing part.
Each statement is evidence for an answer, and records its own problem, if it has one.
"""

# ruff: noqa: RUF001

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sftkey_dist.data.segmenting import wording
from sftkey_dist.data.segmenting.answer import (
    Span,
    emphasised_part,
    narrow,
    same_answer,
    why_no_answer,
)

TEXT_AFTER_ANSWER = "text_after_answer"
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
_HASH_MARK = re.compile(r"####\s*(?=[^\s#])")
_BARE = re.compile(r"\(?[A-J]\)?[.)]?|[$€£¥\\]*\s?[-+−]?[\d.,/:]*\d\s?[%°]?(?:\s[^\W\d]+){0,2}")
_BULLET = re.compile(r"[-•*+]\s+")
_FEW_WORDS = 4
_LONGEST_SENTENCE = 600
"""Number of characters at the end of a line or sentence that are searched for a statement."""
_LONGEST_SIGN_OFF = 240
_SENTENCES_TO_SEARCH = 60
"""Number of sentences before the closing part that are searched for a candidate to show to a person."""
_MOST_STATEMENTS = 50
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


@dataclass(frozen=True)
class _Text:
    """A response from ``start`` on, with the contents of its boxes, and its units, which are lines and sentences."""

    response: str
    start: int
    boxes: Sequence[Span]
    units: Sequence[Span]

    def of(self, unit: Span) -> str:
        return self.response[unit[0] : unit[1]]


def read_closing(response: str, start: int) -> Closing:
    """Find the closing part of a response from ``start`` on."""
    boxes = tuple(_boxes(response, start))
    text = _Text(response, start, boxes, tuple(_units(response, start, boxes)))
    units, end = _without_sign_offs(text)
    statements, rest = _closing_statements(text, units)
    if not statements:
        return Closing(_stated_before(text, units), end, boxes)
    return Closing(statements, end, boxes, "runs_on" if _runs_on(text, units[:rest]) else "")


def _closing_statements(text: _Text, units: Sequence[Span]) -> tuple[list[Statement], int]:
    """The statements at the end, and the number of units before them."""
    statements: list[Statement] = []
    rest = len(units)
    while rest and len(statements) < _MOST_STATEMENTS:
        found, first = _read_back(text, units, rest - 1)
        if statements and any(one.problem for one in found):
            break  # this unit is part of the reasoning that led to the statements
        if not found and not _is_sign_off(text.of(units[rest - 1])):
            break
        statements = [*found, *statements]
        rest = first
    return statements, rest


def _read_back(text: _Text, units: Sequence[Span], last: int) -> tuple[list[Statement], int]:
    """The statements in a unit, and the first unit that belongs to them."""
    found = _statements(text, units[last])
    first = last
    if not found and last and wording.LEAD_ALONE.fullmatch(text.of(units[last - 1])):
        found = _below_a_lead(text, units[last], units[last - 1])
    if found:
        while first and wording.LEAD_ALONE.fullmatch(text.of(units[first - 1])):
            first -= 1
        found = [_led_by(text, units[first : last + 1], one) for one in found]
    return found, first


def _led_by(text: _Text, units: Sequence[Span], statement: Statement) -> Statement:
    """Extend a statement by the lines above that announce it; tags around it belong to no segment."""
    is_tagged = any(text.of(unit).casefold() == "<answer>" for unit in units)
    return replace(
        statement,
        start=min(statement.start, units[0][0]),
        is_led=statement.is_led or len(units) > 1,
        is_quoted=statement.is_quoted and not is_tagged,
    )


def _stated_before(text: _Text, units: Sequence[Span]) -> list[Statement]:
    """The last statement that is followed by other text."""
    for place in range(len(units) - 1, max(0, len(units) - _SENTENCES_TO_SEARCH) - 1, -1):
        found = [one for one in _read_back(text, units, place)[0] if one.problem != "heading"]
        if found:
            return [replace(one, problem=TEXT_AFTER_ANSWER) for one in found]
    return []


def _runs_on(text: _Text, units: Sequence[Span]) -> bool:
    """Whether another question begins after a statement of an answer."""
    for place, unit in enumerate(units[1:], 1):
        if wording.RUNS_ON.match(text.of(unit)) and _read_back(text, units, place - 1)[0]:
            return True
    return False


def _without_sign_offs(text: _Text) -> tuple[Sequence[Span], int]:
    """The units before the sign-offs at the end, and the end of the response without them."""
    left, end = len(text.units), len(text.response)
    while left and _is_sign_off(text.of(text.units[left - 1])) and not _statements(text, text.units[left - 1]):
        left -= 1
        end = text.units[left][0]
    return text.units[:left], end


def is_mark(text: str) -> bool:
    """Whether a text has no content: white space, punctuation, ends of environments, end tokens, think tags."""
    return _SAYS_NOTHING.fullmatch(text) is not None


def _is_sign_off(unit: str) -> bool:
    plain = unit.strip(" \t*_#>¡!😊🎉-")
    return (
        len(unit) <= _LONGEST_SIGN_OFF
        and wording.SIGN_OFF.fullmatch(plain) is not None
        and wording.TAKES_BACK.search(plain) is None
    )


def _boxes(response: str, start: int) -> Iterator[Span]:
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


def _units(response: str, start: int, boxes: Sequence[Span]) -> Iterator[Span]:
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


def _statements(text: _Text, unit: Span) -> list[Statement]:
    found = (find(text, unit) for find in _FINDERS)
    return [statement for statement in found if statement is not None]


def _hash_marks(text: _Text, unit: Span) -> Statement | None:
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


def _boxed(text: _Text, unit: Span) -> Statement | None:
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


def _answer_is(text: _Text, unit: Span) -> Statement | None:
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


def _lead(text: _Text, unit: Span) -> re.Match[str] | None:
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


def _below_a_lead(text: _Text, unit: Span, lead: Span) -> list[Statement]:
    """Find a short answer on the line below "**Final Answer**" or "The answer is:"."""
    bullet = _BULLET.match(text.response, *unit)
    answer = narrow(text.response, (bullet.end() if bullet else unit[0], unit[1]))
    value = text.response[slice(*answer)]
    if not value or len(value.split()) > _FEW_WORDS:
        return []
    return [Statement("answer_is", lead[0], answer, why_no_answer(value), is_led=True)]


def _option_letter(text: _Text, unit: Span) -> Statement | None:
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


def _begins_a_line(text: _Text, unit: Span) -> bool:
    line = text.response.rfind("\n", text.start, unit[0]) + 1
    return not text.response[max(line, text.start) : unit[0]].strip(" *_>#")


def _is_a_word(option: str) -> bool:
    """A lower-case letter without brackets is more often a variable than an option."""
    return option.strip(" *_.") in tuple("abcdefghij")


def _lists_options(text: _Text, unit: Span) -> bool:
    """Whether ``A:`` belongs to a list of options, because another option is on the line above."""
    above = text.response[max(text.start, unit[0] - _LONGEST_SENTENCE) : unit[0]].rstrip().rpartition("\n")[2]
    return _OPTION_LINE.match(above) is not None


def _box_in(text: _Text, span: Span) -> list[Span]:
    return [box for box in text.boxes if span[0] <= box[0] and box[1] <= span[1]]


_FINDERS: tuple[Callable[[_Text, Span], Statement | None], ...] = (_hash_marks, _boxed, _answer_is, _option_letter)
