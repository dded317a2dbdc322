"""Verdicts. An answer that could not be judged does not count as wrong, unless its own text is the reason.

- *Unjudged*: the check or the judge failed, because the server is unreachable, slow, overloaded or out of quota, the
  budget is spent, or the reference cannot be parsed. No other candidate would have been judged either.
- *Incorrect and unjudgeable*: the candidate's text makes the judge or the check fail. The same judge or check succeeds
  on the same question when the reference takes the candidate's place. A model must not gain by being unjudgeable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Result of comparing an answer with its reference."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Judgement:
    """What was decided for an answer: a verdict with its reason.

    Attributes:
        verdict: the verdict.
        reason: the reason, in words.
        certain: whether no judge would decide otherwise.
        unjudgeable: name of the failure that the candidate's text causes, in which case the verdict is incorrect.
    """

    verdict: Verdict
    reason: str = ""
    certain: bool = False
    unjudgeable: str = ""

    @classmethod
    def of(cls, is_correct: bool, reason: str = "", *, certain: bool = False) -> "Judgement":
        """A judgement that is correct or incorrect."""
        return cls(Verdict.CORRECT if is_correct else Verdict.INCORRECT, reason, certain)

    @classmethod
    def unjudged(cls, reason: str) -> "Judgement":
        """A judgement that leaves the answer unjudged."""
        return cls(Verdict.UNJUDGED, reason)

    @classmethod
    def of_unjudgeable(cls, failure: str, reason: str) -> "Judgement":
        """An incorrect judgement, because the candidate's text makes the judge or the check fail."""
        return cls(Verdict.INCORRECT, reason, unjudgeable=failure)


def all_of(judgements: Iterable[Judgement]) -> Judgement:
    """The judgement on several fields: the first incorrect one, else the first unjudged one, else correct."""
    judgements = sorted(judgements, key=lambda judgement: bool(judgement.unjudgeable))
    for verdict in (Verdict.INCORRECT, Verdict.UNJUDGED):
        for judgement in judgements:
            if judgement.verdict is verdict:
                return judgement
    return judgements[0]
