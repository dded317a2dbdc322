"""Deterministic answer checks; a verdict has three values, and not being able to tell is not being wrong."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from sftkey_dist.contract import Form, ResponseContract

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


class Verdict(StrEnum):
    """Outcome of comparing an answer with its reference."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Judgement:
    """A verdict and why."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class FoundAnswer:
    """The answer in an output, and whether the contract was kept (``strict``) or it was searched (``lenient``)."""

    text: str
    source: str


def find_answer(output: str, contract: ResponseContract, form: Form, segment: str) -> FoundAnswer:
    """The text of a key segment: by the contract where it is kept, else the best an accommodating reader finds.

    Accuracy and format are separate measures (METHOD: Key-Tag can answer well in broken format), so a broken
    output still has its answer looked for: after the last opening tag or delimiter, else the whole output.
    """
    parsed = contract.parse(output, form)
    if parsed.keeps_contract:
        return FoundAnswer(parsed.values.get(segment, "").strip(), "strict")
    return FoundAnswer(contract.search(output, form, segment), "lenient")


def check_exact(answer: str, reference: str) -> Judgement:
    """Equal after folding case, white space and a final full stop."""
    if not _normalized(reference):
        return Judgement(Verdict.UNJUDGED, "the reference is empty")
    if not _normalized(answer):
        return Judgement(Verdict.INCORRECT, "no answer")
    same = _normalized(answer) == _normalized(reference)
    return Judgement(Verdict.CORRECT if same else Verdict.INCORRECT)


def check_numeric(answer: str, reference: str) -> Judgement:
    """Equal as numbers; of several numbers in a text the last counts. Thousands separators are ignored."""
    expected = last_number(reference)
    if expected is None:
        return Judgement(Verdict.UNJUDGED, "the reference holds no number")
    found = last_number(answer)
    if found is None:
        return Judgement(Verdict.INCORRECT, "no number in the answer")
    return Judgement(Verdict.CORRECT if found == expected else Verdict.INCORRECT)


def last_number(text: str) -> Decimal | None:
    """The last number of a text, exactly."""
    numbers = _NUMBER.findall(text)
    if not numbers:
        return None
    try:
        return Decimal(numbers[-1].replace(",", ""))
    except InvalidOperation:
        return None


ANSWER_CHECKS: dict[str, Callable[[str, str], Judgement]] = {"exact": check_exact, "numeric": check_numeric}


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip()
