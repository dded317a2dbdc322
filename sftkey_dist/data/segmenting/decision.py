"""Decides how a response is segmented, from the evidence that all rules find in it.

The result is accepted if all strong evidence in the closing part of the response agrees and no problem is found;
otherwise the row is left for a person, with the candidates. Text outside the spans is either a separator of the rule,
or is reported as removed: thinking, a sign-off, a repeated answer.
"""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice

from sftkey_dist.data.segmenting.answer import (
    narrow,
    same_answer,
)
from sftkey_dist.data.segmenting.cut import ANSWER, Candidate, Cut, NotCut
from sftkey_dist.data.segmenting.rules import Finding, Response, Rule
from sftkey_dist.data.segmenting.thinking import holds_thinking_tag
from sftkey_dist.data.segmenting.units import is_mark

_MAX_CANDIDATES_FURTHER_UP = 10
_HASH_LINE = re.compile(r"^####[ \t]*([$-]?\d[\d.,]*)[ \t.]*$", re.MULTILINE)


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
    return tuple(dict.fromkeys((*found, *islice(further_up, _MAX_CANDIDATES_FURTHER_UP))))


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
