"""Pairs each question with a donor: a question of the same test set with another answer.

Pairs depend on the questions, their references, the contract and the checks, so all strategies of a run get the same
ones. They are formed one after another in the order of the ids' hashes, so that more questions only add pairs.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.record import verdict_on_reference
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.verdict import Verdict

NO_REASONING, NO_ANSWER, NO_DONOR = "no_reasoning", "no_answer", "no_donor"
OTHER_SEGMENTS, SAME_ANSWER, ANSWER_UNREADABLE = "other_segments", "same_answer", "answer_unreadable"

_MAX_CANDIDATES = 256
"""Maximum number of donors that are considered for a question."""


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
    by_data_set: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: _hash("question", example.id)):
        by_data_set.setdefault(example.data_set, []).append(example)
    for of_set in by_data_set.values():
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
    answers, others = (_answers(example, settings.contract) for example in (question, donor))
    if answers.keys() != others.keys():
        return OTHER_SEGMENTS  # the mark before the answer would say which segment follows
    verdicts = {verdict_on_reference(question, donor, settings), verdict_on_reference(donor, question, settings)}
    if answers == others or Verdict.CORRECT in verdicts:
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
    problems = [problem_with_reasoning(example, settings.contract) for example in examples]
    by_segments: dict[frozenset[str], list[Example]] = {}
    for example, problem in zip(examples, problems, strict=True):
        if not problem:
            by_segments.setdefault(frozenset(_answers(example, settings.contract)), []).append(example)
    donors = {segments: _Donors(of, settings) for segments, of in by_segments.items()}
    for question, problem in zip(examples, problems, strict=True):
        donor = None if problem else donors[frozenset(_answers(question, settings.contract))].take(question)
        yield problem or (NO_DONOR if donor is None else Pair(question, donor))


class _Donors:
    """Examples of a test set with the same key segments, as a ring. Each is given to about as many questions."""

    def __init__(self, examples: Sequence[Example], settings: EvaluationSettings) -> None:
        self._examples, self._settings = examples, settings
        self._answers = [_answers(example, settings.contract) for example in examples]
        self._num_questions = [0] * len(examples)
        self._num_equal = _num_equal(self._answers)

    def take(self, question: Example) -> Example | None:
        """The donor of a question; None if no candidate has another answer."""
        candidates = islice(self._with_other_texts(question), _MAX_CANDIDATES)
        for place in sorted(candidates, key=self._num_questions.__getitem__):
            if not problem_with_pair(question, self._examples[place], self._settings):
                self._num_questions[place] += 1
                return self._examples[place]
        return None

    def _with_other_texts(self, question: Example) -> Iterator[int]:
        """Places of the examples whose answers are other texts, once around the ring from where a hash says."""
        answers, size = _answers(question, self._settings.contract), len(self._examples)
        start = step = int.from_bytes(_hash("donor", question.id)) % size
        while step < start + size:
            place = step % size
            if self._answers[place] == answers:
                step += self._num_equal[place]
            else:
                yield place
                step += 1


def _num_equal(ring: Sequence[object]) -> list[int]:
    """How many items in a row, from each on, equal it."""
    size = len(ring)
    found = [1] * size
    for place in [*reversed(range(size))] * 2:  # a row may go on at the beginning
        following = (place + 1) % size
        found[place] = found[following] + 1 if ring[place] == ring[following] else 1
    return found


def _answers(example: Example, contract: ResponseContract) -> dict[str, str]:
    """The texts of the key segments that an example has."""
    texts = {segment.name: example.values.get(segment.name, "").strip() for segment in contract.key_segments}
    return {name: text for name, text in texts.items() if text}


def _hash(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=8).digest()
