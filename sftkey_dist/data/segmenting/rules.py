"""Rules that find the reasoning and the answer in a response.

A rule returns spans of the response and never new text, so a segment cannot contain anything that the response does
not. Spans may overlap: an answer in the middle of the reasoning's last line is quoted and not removed from it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sftkey_dist.config.rules import RegexRule, RuleName, Rules
from sftkey_dist.data.segmenting.answer import (
    MAX_CHARACTERS,
    Span,
    narrow,
    why_never_trained,
    why_no_answer,
    without_emphasis,
)
from sftkey_dist.data.segmenting.closing import TEXT_AFTER_ANSWER, Closing, read_closing
from sftkey_dist.data.segmenting.cut import ANSWER, REASONING, NotCut, Spans, uncovered
from sftkey_dist.data.segmenting.statements import Statement
from sftkey_dist.data.segmenting.thinking import Thinking, find_thinking
from sftkey_dist.patterns import compile_pattern, match_whole

DEFAULT_RULES: tuple[RuleName, ...] = ("hash_marks", "think", "boxed", "answer_is", "option_letter", "last_line")

_MAX_WORDS_OF_A_LAST_LINE = 6
_MAX_WORDS_AFTER_THINKING = 4


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
    if "\n" in text or len(text) > MAX_CHARACTERS:
        return []
    problem = why_no_answer(text) or ("sentence" if len(text.split()) > _MAX_WORDS_AFTER_THINKING else "")
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
    is_short = 0 < len(text.split()) <= _MAX_WORDS_OF_A_LAST_LINE
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
