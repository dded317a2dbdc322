"""A verdict has three values: not being able to tell is not being wrong."""

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
    """A verdict, why, and whether no judge would see it otherwise (`certain`)."""

    verdict: Verdict
    reason: str = ""
    certain: bool = False

    @classmethod
    def of(cls, is_correct: bool, reason: str = "", *, certain: bool = False) -> "Judgement":
        """Correct or incorrect."""
        return cls(Verdict.CORRECT if is_correct else Verdict.INCORRECT, reason, certain)

    @classmethod
    def unjudged(cls, reason: str) -> "Judgement":
        """There is no telling."""
        return cls(Verdict.UNJUDGED, reason)


def all_of(judgements: Iterable[Judgement]) -> Judgement:
    """Of several fields: one that is wrong decides, then one that is unjudged; correct when all are."""
    judgements = list(judgements)
    for verdict in (Verdict.INCORRECT, Verdict.UNJUDGED):
        for judgement in judgements:
            if judgement.verdict is verdict:
                return judgement
    return judgements[0]
