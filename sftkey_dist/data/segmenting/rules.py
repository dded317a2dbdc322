"""Rules that split a response into reasoning and answer.

A rule returns spans of the response and never new text, so a segment cannot contain anything that the response does
not. Each rule finds evidence. The result is accepted if all strong evidence in the closing part of the response agrees
and no problem is found; otherwise the row is left for a person, with the candidates. Spans may overlap: an answer in
the middle of the reasoning's last line is quoted and not removed from it. Text outside the spans is either a separator
of the rule, or is reported as removed: thinking, a sign-off, a repeated answer.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from sftkey_dist.config.data import RegexRule, RuleName, Rules
from sftkey_dist.data.segmenting.answer import (
    MOST_CHARACTERS,
    Span,
    narrow,
    same_answer,
    why_never_trained,
    why_no_answer,
    without_emphasis,
)
from sftkey_dist.data.segmenting.closing import TEXT_AFTER_ANSWER, Closing, Statement, is_mark, read_closing
from sftkey_dist.data.segmenting.thinking import Thinking, find_thinking, holds_thinking_tag
from sftkey_dist.patterns import compile_pattern, match_whole

REASONING, ANSWER = "reasoning", "answer"
DEFAULT_RULES: tuple[RuleName, ...] = ("hash_marks", "think", "boxed", "answer_is", "option_letter", "last_line")

Spans = Mapping[str, Span]

_MOST_WORDS_OF_A_LAST_LINE = 6
_MOST_WORDS_AFTER_THINKING = 4
_MOST_CANDIDATES_FURTHER_UP = 10
_HASH_LINE = re.compile(r"^####[ \t]*([$-]?\d[\d.,]*)[ \t.]*$", re.MULTILINE)


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


class Response:
    """A response, with the parts that several rules use."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def thinking(self) -> Thinking:
        """Position of its thinking."""
        return find_thinking(self.text)

    @cached_property
    def closing(self) -> Closing:
        """Its closing part, which is empty if the thinking cannot be separated from the rest."""
        if self.thinking.problem:
            return Closing((), len(self.text))
        return read_closing(self.text, self.thinking.after)

    @property
    def body(self) -> Span:
        """Span of the text after the thinking, without sign-offs."""
        return _trimmed(self.text, (self.thinking.after, self.closing.end))

    @property
    def outside(self) -> tuple[str, ...]:
        """Thinking and sign-offs, which need not belong to a segment."""
        parts = (self.text[: self.thinking.after], self.text[self.closing.end :])
        return tuple(part.strip() for part in parts if part.strip())


@dataclass(frozen=True)
class Finding:
    """The result of a rule for a response.

    Attributes:
        rule: name of the rule.
        spans: the span of each segment.
        problem: why it is doubtful; "" if it is not.
        is_led: whether words or marks say that this is the answer.
        start: start of its statement.
        lacks_reasoning: whether no text precedes it. Such a finding is only evidence for other findings.
    """

    rule: str
    spans: Spans
    problem: str = ""
    is_led: bool = False
    start: int = 0
    lacks_reasoning: bool = False


@dataclass(frozen=True)
class Rule:
    """A rule that finds segments.

    Attributes:
        name: name used in reports.
        find: returns the findings in a response, in order.
        is_guess: whether its findings are only proposed to a person.
    """

    name: str
    find: Callable[[Response], Sequence[Finding] | NotCut]
    is_guess: bool = False


def resolve_rules(names: Rules) -> tuple[Rule, ...]:
    """The rules for the configured names.

    `default` stands for all built-in rules, of which `last_line` only guesses. Two rules are less strict if they are
    the only rule: `think` takes all text after the thinking as the answer, and `boxed` accepts a box that other text
    follows.
    """
    if len(names) == 1 and names[0] in _AS_ONLY_RULE:
        return (Rule(str(names[0]), _AS_ONLY_RULE[str(names[0])]),)
    rules: list[Rule] = []
    for name in names:
        if isinstance(name, RegexRule):
            rules.append(_own_rule(name))
        elif name == "default":
            rules += [replace(_BUILT_IN[each], is_guess=each == "last_line") for each in DEFAULT_RULES]
        else:
            rules.append(_BUILT_IN[name])
    return tuple(rules)


def cut_response(response: str, rules: Sequence[Rule]) -> Cut | NotCut:
    """Segment a response by the first rule, in order, with a finding; there is a doubt unless all evidence agrees."""
    read = Response(response)
    sure, guesses, refused = _evidence(read, rules)
    best = next((finding for finding in (*sure, *guesses) if not finding.lacks_reasoning), None)
    if best is None:
        return refused or _nothing_found(read)
    names = {rule.name for rule in rules}
    values = {name: response[start:end] for name, (start, end) in best.spans.items()}
    if best in guesses:
        doubt: NotCut | None = NotCut("only_a_guess", f"rule {best.rule} finds the answer {values[ANSWER][:60]!r}")
    else:
        doubt = _doubt(read, best, sure, values, names)
    candidates = _candidates(read, (*sure, *guesses), names)
    return Cut(values, best.rule, doubt, candidates, _removed(read, best))


def uncovered(response: str, spans: Spans, is_separator: Callable[[str], bool]) -> str:
    """A message about text outside all spans that is not a separator and would be lost; "" if there is none."""
    end = 0
    for start, stop in (*sorted(spans.values()), (len(response), len(response))):
        gap = response[end:start]
        if gap and not is_separator(gap):
            return f"{gap[:60]!r} lies outside the segments"
        end = max(end, stop)
    return ""


def _evidence(read: Response, rules: Sequence[Rule]) -> tuple[list[Finding], list[Finding], NotCut | None]:
    """The findings of the rules, the guesses, and the first reason for which a rule that applied was refused."""
    sure: list[Finding] = []
    guesses: list[Finding] = []
    refused = None
    for rule in rules:
        found = rule.find(read)
        if isinstance(found, NotCut):
            refused = refused or found
        else:
            (guesses if rule.is_guess else sure).extend(found)
    return sure, guesses, refused


def _nothing_found(read: Response) -> NotCut:
    if read.thinking.problem:
        return NotCut(read.thinking.problem, f"the thinking of {read.text[:60]!r} does not end, or is not at the start")
    if read.closing.statements:
        return NotCut("no_reasoning", f"there is nothing but the answer in {read.text[-60:]!r}")
    return NotCut("no_rule", f"no rule applies to {read.text[-60:]!r}")


def _doubt(
    read: Response, best: Finding, sure: Sequence[Finding], values: Mapping[str, str], rules: Container[str]
) -> NotCut | None:
    """The problem of the finding that would be used; None if there is none."""
    if any(map(holds_thinking_tag, values.values())):
        return NotCut("unclear_thinking", "a tag of thinking lies inside a segment")
    if ANSWER not in best.spans:
        return None
    return _problem_of(read.text, sure) or _disagreement(read, best, sure, rules) or _running_on(read, best)


def _problem_of(response: str, sure: Sequence[Finding]) -> NotCut | None:
    doubtful = next((finding for finding in sure if finding.problem), None)
    if doubtful is None:
        return None
    return NotCut(doubtful.problem, f"rule {doubtful.rule} finds the answer {_answer(response, doubtful)[:60]!r}")


def _disagreement(read: Response, best: Finding, sure: Sequence[Finding], rules: Container[str]) -> NotCut | None:
    """A different answer in the evidence, or in a box or a ``####`` line further up; None if there is none."""
    answer = _answer(read.text, best)
    for finding in sure:
        other = _answer(read.text, finding)
        if ANSWER in finding.spans and not same_answer(other, answer):
            return NotCut("rules_disagree", f"rule {finding.rule} finds the answer {other[:40]!r}")
    for rule, other in _stated_further_up(read, sure):
        if rule in rules and not same_answer(other, answer):
            return NotCut("rules_disagree", f"rule {rule} finds the answer {other[:40]!r} further up")
    return None


def _stated_further_up(read: Response, sure: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """Answers in ``####`` lines with a number, and in boxes, unless the text says that another box is the answer."""
    if not any(finding.rule == "boxed" and finding.is_led for finding in sure):
        for box in read.closing.boxes:
            yield "boxed", read.text[slice(*narrow(read.text, box))]
    for line in _HASH_LINE.finditer(read.text, read.thinking.after, min(finding.start for finding in sure)):
        yield "hash_marks", line[1]


def _running_on(read: Response, best: Finding) -> NotCut | None:
    problem = read.closing.problem
    return NotCut(problem, f"{_answer(read.text, best)[:40]!r} answers another question") if problem else None


def _answer(response: str, finding: Finding) -> str:
    start, end = finding.spans.get(ANSWER, (0, 0))
    return response[start:end]


def _candidates(read: Response, findings: Sequence[Finding], rules: Container[str]) -> tuple[Candidate, ...]:
    """All distinct answers that were found; those further up in the response come last."""
    found = (Candidate(finding.rule, _answer(read.text, finding)) for finding in findings if ANSWER in finding.spans)
    further_up = (Candidate(rule, answer) for rule, answer in _stated_further_up(read, findings) if rule in rules)
    return tuple(dict.fromkeys((*found, *islice(further_up, _MOST_CANDIDATES_FURTHER_UP))))


def _removed(read: Response, best: Finding) -> Mapping[str, str]:
    """Thinking, sign-off and the text between the answer and the sign-off, as far as they belong to no segment."""
    covered = max(end for _, end in best.spans.values())
    sign_off = max(covered, read.closing.end)
    parts = {
        "thinking": read.text[: read.thinking.after],
        "after_answer": read.text[covered:sign_off],
        "sign_off": read.text[sign_off:],
    }
    kept = min(start for start, _ in best.spans.values())
    if kept < read.thinking.end:
        del parts["thinking"]
    return {name: text.strip() for name, text in parts.items() if not is_mark(text)}


def _trimmed(response: str, span: Span) -> Span:
    """A span without white space at its ends."""
    text = response[slice(*span)]
    start = span[0] + len(text) - len(text.lstrip())
    return start, max(start, span[1] - (len(text) - len(text.rstrip())))


def _stated(rule: str) -> Callable[[Response], Sequence[Finding]]:
    """A function that returns the findings of one rule's statements in the closing part, the last one first."""

    def find(read: Response) -> Sequence[Finding]:
        stated = (statement for statement in reversed(read.closing.statements) if statement.rule == rule)
        return [_finding(read, statement) for statement in stated if statement.answer[0] < statement.answer[1]]

    return find


def _finding(read: Response, statement: Statement) -> Finding:
    reasoning = next((span for span in _reasonings(read, statement) if span[0] < span[1]), None)
    spans = {ANSWER: statement.answer} if reasoning is None else {REASONING: reasoning, ANSWER: statement.answer}
    return Finding(
        statement.rule, spans, statement.problem, statement.is_led, statement.start, lacks_reasoning=reasoning is None
    )


def _reasonings(read: Response, statement: Statement) -> Iterator[Span]:
    """Possible spans of the reasoning, the best first: around or before the statement, or in the thinking."""
    start, end = read.body
    first = min(one.start for one in read.closing.statements if one is statement or not one.is_quoted)
    if statement.is_quoted:
        yield start, end
    elif read.text[start:first].strip():  # statements alone are not a reasoning
        yield _trimmed(read.text, (start, statement.start))
    yield _trimmed(read.text, (read.thinking.start, read.thinking.end))


def _think(read: Response) -> Sequence[Finding]:
    """Find the format of reasoning models: ``<think>reasoning</think>answer``."""
    reasoning = _trimmed(read.text, (read.thinking.start, read.thinking.end))
    answer = narrow(read.text, read.body)
    if read.closing.statements or reasoning[0] >= reasoning[1] or answer[0] >= answer[1]:
        return []
    text = read.text[slice(*answer)]
    if "\n" in text or len(text) > MOST_CHARACTERS:
        return []
    problem = why_no_answer(text) or ("sentence" if len(text.split()) > _MOST_WORDS_AFTER_THINKING else "")
    return [Finding("think", {REASONING: reasoning, ANSWER: answer}, problem, start=answer[0])]


def _think_as_only_rule(read: Response) -> Sequence[Finding]:
    """The same as the only rule: all text after the thinking is the answer."""
    reasoning = _trimmed(read.text, (read.thinking.start, read.thinking.end))
    answer = narrow(read.text, read.body)
    if reasoning[0] >= reasoning[1] or answer[0] >= answer[1]:
        return []
    problem = why_never_trained(read.text[slice(*answer)])
    return [Finding("think", {REASONING: reasoning, ANSWER: answer}, problem, start=answer[0])]


def _last_line(read: Response) -> Sequence[Finding]:
    """Find a short last line."""
    start, end = read.body
    line = max(start, read.text.rfind("\n", start, end) + 1)
    answer = narrow(read.text, (line, end))
    text = read.text[slice(*answer)]
    reasoning = _trimmed(read.text, (start, line))
    is_short = 0 < len(text.split()) <= _MOST_WORDS_OF_A_LAST_LINE
    if not is_short or reasoning[0] >= reasoning[1] or why_no_answer(text) or read.closing.statements:
        return []
    return [Finding("last_line", {REASONING: reasoning, ANSWER: answer}, start=line)]


def _boxed_as_only_rule(read: Response) -> Sequence[Finding]:
    """Find a box anywhere. It is quoted from the reasoning, so the text after it is not lost."""
    found = _stated("boxed")(read)
    return [replace(finding, problem="") if finding.problem == TEXT_AFTER_ANSWER else finding for finding in found]


_AS_ONLY_RULE: dict[str, Callable[[Response], Sequence[Finding]]] = {
    "think": _think_as_only_rule,
    "boxed": _boxed_as_only_rule,
}
_BUILT_IN: dict[str, Rule] = {
    **{name: Rule(name, _stated(name)) for name in ("hash_marks", "boxed", "answer_is", "option_letter")},
    "think": Rule("think", _think),
    "last_line": Rule("last_line", _last_line),
}


def _own_rule(rule: RegexRule) -> Rule:
    pattern, separators = compile_pattern(rule.regex, dot_matches_newline=True), compile_pattern(rule.separators)

    def find(read: Response) -> Sequence[Finding] | NotCut:
        start, end = _trimmed(read.text, (0, len(read.text)))
        match = match_whole(pattern, read.text, start, end)
        if match is None:
            return []
        spans = {name: _trimmed(read.text, match.span(name)) for name in pattern.groupindex if match[name] is not None}
        if any(from_ >= to for from_, to in spans.values()):
            return []
        problem = uncovered(read.text, spans, lambda text: match_whole(separators, text) is not None)
        if problem:
            return NotCut("not_covered", f"{rule.name}: {problem}")
        return [_cleaned(rule.name, read.text, spans)]

    return Rule(rule.name, find)


def _cleaned(rule: str, response: str, spans: Spans) -> Finding:
    """Clean the findings of a custom expression: emphasis is removed, and other markup is a problem."""
    plain = {name: without_emphasis(response, span) for name, span in spans.items()}
    if ANSWER not in plain:
        return Finding(rule, plain)
    plain[ANSWER] = narrow(response, plain[ANSWER])
    problem = why_never_trained(response[slice(*plain[ANSWER])])
    return Finding(rule, plain, problem, is_led=True, start=plain[ANSWER][0])
