"""Which answers to one question are the same, for the vote of the majority."""

from collections.abc import Sequence
from typing import Any

from sftkey_dist.evaluation.answers.checks import Check, FunctionOfUsers
from sftkey_dist.evaluation.answers.text import normalized
from sftkey_dist.evaluation.verdict import Verdict


def first_same(check: Check[Any] | FunctionOfUsers, answers: Sequence[str], question: str) -> list[int]:
    """For each of N answers, the index of the first answer that is the same [N].

    The check decides about answers that it can read, so that ``42`` and ``$42.00`` are the same number. Other answers
    are the same if their texts are. So are all answers under a user's function, which compares with references alone.
    """
    texts = [normalized(answer) for answer in answers]
    if isinstance(check, FunctionOfUsers):
        return [texts.index(text) for text in texts]
    readings = [_reading(check, answer, question) for answer in answers]
    firsts: list[int] = []
    for index, text in enumerate(texts):
        for first in dict.fromkeys(firsts):
            agree = _agree(check, readings[first], readings[index])
            if texts[first] == text if agree is None else agree:
                firsts.append(first)
                break
        else:
            firsts.append(index)
    return firsts


def _reading(check: Check[Any], answer: str, question: str) -> Any:
    """What the check reads in an answer; None if that is nothing, or if the check fails on it."""
    try:
        return check.read(answer, question) if answer.strip() else None
    except Exception:  # a fault of a reader that some output reveals must not end the evaluation
        return None


def _agree(check: Check[Any], one: Any, other: Any) -> bool | None:
    """Whether two readings agree; None if the check cannot say."""
    if one is None or other is None or not check.is_reference(one):
        return None
    try:
        return check.compare(one, other).verdict is Verdict.CORRECT
    except Exception:  # as above
        return None
