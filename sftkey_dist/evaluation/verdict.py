"""A verdict has three values: not being able to tell is not being wrong, unless the candidate's own text is the reason.

- *Unjudged*: the check or the judge fails. The server is away, slow, overloaded or out of quota, the budget is spent,
  or the reference cannot be read: another candidate would not have been judged either.
- *Incorrect and unjudgeable*: the candidate's text makes it fail. The same judge, or the same check, copes with the
  same question when the reference stands in the candidate's place. Being unjudgeable must not pay.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Outcome of comparing an answer with its reference."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Judgement:
    """A verdict and why.

    Attributes:
        verdict: the outcome.
        reason: in words.
        certain: whether no judge would see it otherwise.
        unjudgeable: name of the failure that the candidate's text causes; the verdict is incorrect then.
    """

    verdict: Verdict
    reason: str = ""
    certain: bool = False
    unjudgeable: str = ""

    @classmethod
    def of(cls, is_correct: bool, reason: str = "", *, certain: bool = False) -> "Judgement":
        """Correct or incorrect."""
        return cls(Verdict.CORRECT if is_correct else Verdict.INCORRECT, reason, certain)

    @classmethod
    def unjudged(cls, reason: str) -> "Judgement":
        """There is no telling."""
        return cls(Verdict.UNJUDGED, reason)

    @classmethod
    def of_unjudgeable(cls, failure: str, reason: str) -> "Judgement":
        """Incorrect, as the candidate's text makes whoever judges it fail."""
        return cls(Verdict.INCORRECT, reason, unjudgeable=failure)


def all_of(judgements: Iterable[Judgement]) -> Judgement:
    """Of several fields: one that is wrong decides, then one that is unjudged; correct when all are."""
    judgements = sorted(judgements, key=lambda judgement: bool(judgement.unjudgeable))
    for verdict in (Verdict.INCORRECT, Verdict.UNJUDGED):
        for judgement in judgements:
            if judgement.verdict is verdict:
                return judgement
    return judgements[0]
