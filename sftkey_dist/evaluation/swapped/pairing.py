"""Pairs each question with a donor: a question of the same test set with another answer.

Pairs depend on the ids and the references of the questions alone, so every strategy gets the same ones.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.record import verdict_on_reference
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.verdict import Verdict

NO_REASONING, NO_ANSWER, NO_DONOR = "no_reasoning", "no_answer", "no_donor"
SAME_ANSWER, ANSWER_UNREADABLE = "same_answer", "answer_unreadable"


@dataclass(frozen=True)
class Pair:
    """A question and the question whose reasoning takes the place of its own."""

    question: Example
    donor: Example


@dataclass(frozen=True)
class Pairs:
    """The pairs, and the number of questions that were passed over by reason."""

    pairs: tuple[Pair, ...]
    left_out: dict[str, int]


def choose_pairs(examples: Sequence[Example], number: int, settings: EvaluationSettings) -> Pairs:
    """Pairs for ``number`` questions of each test set, or for as many as have a donor.

    Args:
        examples: the test sets.
        number: questions per test set.
        settings: the contract and the checks that say whether two answers differ.
    """
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for name in dict.fromkeys(example.data_set for example in examples):
        of_set = sorted((example for example in examples if example.data_set == name), key=lambda e: _hash(e.id))
        found = 0
        for outcome in _paired(of_set, settings):
            if found == number:
                break
            if isinstance(outcome, str):
                left_out[outcome] += 1
            else:
                pairs.append(outcome)
                found += 1
    return Pairs(tuple(pairs), dict(left_out))


def problem_with_pair(question: Example, donor: Example, settings: EvaluationSettings) -> str:
    """Why the reasoning of one example tells nothing with the prompt of the other; "" if their answers differ."""
    verdicts = {verdict_on_reference(question, donor, settings), verdict_on_reference(donor, question, settings)}
    if Verdict.CORRECT in verdicts:
        return SAME_ANSWER
    return ANSWER_UNREADABLE if Verdict.UNJUDGED in verdicts else ""


def problem_with_reasoning(example: Example, contract: ResponseContract) -> str:
    """Why an example has no reasoning before its answer; "" if it has."""
    present = [segment for segment in contract.segments if example.values.get(segment.name, "").strip()]
    if not any(segment.key for segment in present):
        return NO_ANSWER
    return NO_REASONING if present[0].key else ""


def _paired(examples: Sequence[Example], settings: EvaluationSettings) -> Iterator[Pair | str]:
    """A pair for each example of a test set, or why there is none."""
    donors = [example for example in examples if not problem_with_reasoning(example, settings.contract)]
    for question in examples:
        problem = problem_with_reasoning(question, settings.contract)
        donor = None if problem else _donor(question, donors, settings)
        yield problem or (NO_DONOR if donor is None else Pair(question, donor))


def _donor(question: Example, donors: Sequence[Example], settings: EvaluationSettings) -> Example | None:
    keys = _present_keys(question, settings.contract)
    for donor in sorted(donors, key=lambda donor: _hash(question.id, donor.id)):
        other = _present_keys(donor, settings.contract)
        if other.keys() == keys.keys() and other != keys and not problem_with_pair(question, donor, settings):
            return donor
    return None


def _present_keys(example: Example, contract: ResponseContract) -> dict[str, str]:
    """The texts of the key segments that an example has."""
    texts = {segment.name: example.values.get(segment.name, "").strip() for segment in contract.key_segments}
    return {name: text for name, text in texts.items() if text}


def _hash(*ids: str) -> bytes:
    return hashlib.blake2b("\0".join(ids).encode(errors="surrogatepass"), digest_size=8).digest()
