"""Rules that cut a response into reasoning and answer.

A rule names spans of the response, never new text, so what it returns cannot say anything the response does not.
Every cut is verified: the spans, and between them what the rule declares as separators, cover the whole response. A
span may lie inside another: an answer in the middle of the reasoning's last line is quoted, not cut out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.config.data import RegexRule, RuleName, Rules

REASONING, ANSWER = "reasoning", "answer"
DEFAULT_RULES: tuple[RuleName, ...] = ("hash_marks", "think", "boxed", "answer_is", "option_letter", "last_line")

Span = tuple[int, int]
Spans = Mapping[str, Span]

_MOST_WORDS_OF_A_LAST_LINE = 6


@dataclass(frozen=True)
class Rule:
    """A way to cut.

    Attributes:
        name: name in reports.
        find: the spans in a response, or None where the rule does not apply.
        separators: what may lie outside the spans.
        weak: whether it only guesses; a guess never disagrees with another rule.
    """

    name: str
    find: Callable[[str], Spans | None]
    separators: re.Pattern[str]
    weak: bool = False

    def is_separator(self, text: str) -> bool:
        """Whether a text may lie outside the spans."""
        return self.separators.fullmatch(text) is not None


@dataclass(frozen=True)
class Cut:
    """A response, cut: text of each segment, the rule that did it, and why a human should look, if so."""

    values: Mapping[str, str]
    rule: str
    doubt: str = ""


@dataclass(frozen=True)
class NotCut:
    """A response that no rule cuts; ``reason`` is short and stable."""

    reason: str
    detail: str


def resolve_rules(names: Rules) -> tuple[Rule, ...]:
    """The rules behind their names; `default` stands for all built-in ones."""
    rules: list[Rule] = []
    for name in names:
        if isinstance(name, RegexRule):
            rules.append(_own_rule(name))
        else:
            rules += [_BUILT_IN[each] for each in (DEFAULT_RULES if name == "default" else (name,))]
    return tuple(rules)


def cut_response(response: str, rules: Sequence[Rule]) -> Cut | NotCut:
    """The first rule in order that applies and is verified; a doubt where another one finds another answer."""
    refused = ""
    for place, rule in enumerate(rules):
        spans = _trimmed(response, rule.find(response))
        if spans is None:
            continue
        problem = uncovered(response, spans, rule.is_separator)
        if problem:
            refused = refused or f"{rule.name}: {problem}"
            continue
        values = {name: response[start:end] for name, (start, end) in spans.items()}
        return Cut(values, rule.name, _disagreement(response, spans, rules[place + 1 :]))
    if refused:
        return NotCut("not_covered", refused)
    return NotCut("no_rule", f"no rule applies to {response[-60:]!r}")


def uncovered(response: str, spans: Spans, is_separator: Callable[[str], bool]) -> str:
    """What a cut would lose: text outside all spans that is no separator; "" when nothing is."""
    end = 0
    for start, stop in (*sorted(spans.values()), (len(response), len(response))):
        gap = response[end:start]
        if gap and not is_separator(gap):
            return f"{gap[:60]!r} lies outside the segments"
        end = max(end, stop)
    return ""


def same_answer(one: str, other: str) -> bool:
    """Whether two answers differ in nothing but case, spacing, currency, brackets and a final full stop."""
    return _bare(one) == _bare(other)


def _bare(answer: str) -> str:
    return re.sub(r"[\s$,()*]|\\[!,;]|\\text\b|[{}]", "", answer).casefold().rstrip(".")


def _disagreement(response: str, spans: Spans, others: Sequence[Rule]) -> str:
    """A strong rule that finds another answer at another place; one that encloses this answer means the same."""
    if ANSWER not in spans:
        return ""
    start, end = spans[ANSWER]
    for rule in others:
        found = None if rule.weak else _trimmed(response, rule.find(response))
        if found is None or ANSWER not in found:
            continue
        from_, to = found[ANSWER]
        if (to <= start or end <= from_) and not same_answer(response[from_:to], response[start:end]):
            return f"rule {rule.name} finds the answer {response[from_:to][:40]!r}"
    return ""


def _trimmed(response: str, spans: Spans | None) -> Spans | None:
    """Spans without white space at their ends; None when one of them is blank."""
    if spans is None:
        return None
    trimmed = {}
    for name, (start, end) in spans.items():
        text = response[start:end]
        if not text.strip():
            return None
        trimmed[name] = (start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip())))
    return trimmed


def _hash_marks(response: str) -> Spans | None:
    """GSM8K: the answer follows the last ``####``."""
    mark = response.rfind("####")
    return None if mark < 0 else {REASONING: (0, mark), ANSWER: (mark + 4, len(response))}


def _think(response: str) -> Spans | None:
    """Reasoning models: ``<think>reasoning</think>answer``."""
    start, end = response.find("<think>"), response.rfind("</think>")
    if end < 0 or start > end or response[: max(start, 0)].strip():
        return None
    body = 0 if start < 0 else start + len("<think>")
    return {REASONING: (body, end), ANSWER: (end + len("</think>"), len(response))}


def _boxed(response: str) -> Spans | None:
    r"""Mathematics: the content of the last ``\boxed{}``, quoted from the whole response as reasoning."""
    mark = response.rfind("\\boxed{")
    if mark < 0:
        return None
    start, depth = mark + len("\\boxed{"), 1
    for end in range(start, len(response)):
        escaped = response[end - 1] == "\\" and response[end - 2] != "\\"
        if response[end] in "{}" and not escaped:
            depth += 1 if response[end] == "{" else -1
        if depth == 0:
            return {REASONING: (0, len(response)), ANSWER: (start, end)}
    return None


_ANSWER_IS = re.compile(
    r"(?:the\s+|my\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|=)\s*(?::\s*)?",
    re.IGNORECASE,
)
_MOST_CHARACTERS_OF_AN_ANSWER = 200


def _answer_is(response: str) -> Spans | None:
    """A last sentence such as "The answer is 42." or "Answer: B"."""
    tail = max(0, len(response) - 400)  # the sentence is the last; a pattern anchored at the end must not search long
    starts = list(re.finditer(r"(?:(?:the|my)\s+)?(?:(?:final|correct)\s+)?\banswer\b", response[tail:], re.IGNORECASE))
    if not starts:
        return None
    match = _ANSWER_IS.match(response, tail + starts[-1].start())
    if match is None:
        return None
    body = response.rstrip()
    end = len(body.removesuffix(".").rstrip())
    answer = response[match.end() : end]
    if not answer or len(answer) > _MOST_CHARACTERS_OF_AN_ANSWER or "\n" in answer:
        return None
    return {REASONING: (0, match.start()), ANSWER: (match.end(), end)}


_OPTION = re.compile(
    r"(?:(?:option|choice|ans(?:wer)?|correct\s+option)\s*(?:is|:|=|-)?\s*)?[(\[]?(?P<answer>[A-Ja-j])[)\].]?\s*\Z",
    re.IGNORECASE,
)


def _option_letter(response: str) -> Spans | None:
    """A last line that is an option: "B", "(B)", "Option B", "Ans - C"."""
    line = len(response.rstrip()) - len(response.rstrip().rpartition("\n")[2])
    match = _OPTION.fullmatch(response, line)
    if match is None or (len(match.group().strip()) == 1 and match[ANSWER].islower()):
        return None
    return {REASONING: (0, line), ANSWER: match.span(ANSWER)}


def _last_line(response: str) -> Spans | None:
    """A short last line; a guess."""
    body = response.rstrip()
    line = body.rfind("\n") + 1
    words = body[line:].split()
    if line == 0 or len(words) > _MOST_WORDS_OF_A_LAST_LINE or not any(map(str.isalnum, body[line:])):
        return None
    return {REASONING: (0, line), ANSWER: (line, len(body))}


_BUILT_IN: dict[str, Rule] = {
    "hash_marks": Rule("hash_marks", _hash_marks, re.compile(r"\s*####\s*|\s*")),
    "think": Rule("think", _think, re.compile(r"\s*</?think>\s*|\s*")),
    "boxed": Rule("boxed", _boxed, re.compile(r"\s*")),
    "answer_is": Rule(
        "answer_is", _answer_is, re.compile(r"\s*[\w\s]{0,24}answer\s*(?:is|:|=)\s*:?\s*|\s*\.?\s*", re.I)
    ),
    "option_letter": Rule("option_letter", _option_letter, re.compile(r"[\w\s]{0,16}[\s:=(\[)\].-]*", re.I)),
    "last_line": Rule("last_line", _last_line, re.compile(r"\s*"), weak=True),
}


def _own_rule(rule: RegexRule) -> Rule:
    pattern = re.compile(rule.regex, re.DOTALL)

    def find(response: str) -> Spans | None:
        match = pattern.fullmatch(response.strip())
        if match is None:
            return None
        shift = len(response) - len(response.lstrip())
        groups = {name: match.span(name) for name in pattern.groupindex if match[name] is not None}
        return {name: (start + shift, end + shift) for name, (start, end) in groups.items()}

    return Rule(rule.name, find, re.compile(rule.separators))
