"""Hard pairs of answer and reference, labelled by reading, and how a way of comparing does on them."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.evaluation.answers import Case, make_check

HARD_PAIRS = Path(__file__).parents[2] / "assets" / "hard_pairs.jsonl"
Word = Literal["correct", "incorrect", "unjudged"]


@dataclass(frozen=True)
class Pair:
    """An answer and its reference.

    Attributes:
        check: as an evaluation's configuration has it, such as ``"numeric"`` or ``{"labels": ["yes", "no"]}``.
        expected: what a careful reader says.
        kind: what is hard about it.
        source: where it came from.
    """

    check: Any
    answer: str
    reference: str
    question: str
    expected: Word
    kind: str
    source: str

    @property
    def check_name(self) -> str:
        return self.check if isinstance(self.check, str) else str(next(iter(self.check)))


@dataclass(frozen=True)
class Judged:
    """What was said of a case."""

    word: Word
    certain: bool = False

    def __str__(self) -> str:
        return f"{self.word}, certain" if self.certain else self.word


@dataclass
class Tally:
    """How often a way of comparing was right.

    Attributes:
        wrong_and_certain: wrong although it said that no judge would see it otherwise.
    """

    pairs: int = 0
    right: int = 0
    wrong: int = 0
    unjudged: int = 0
    certain: int = 0
    wrong_and_certain: int = 0

    def add(self, expected: Word, judged: Judged) -> None:
        is_wrong = judged.word not in (expected, "unjudged")
        self.pairs += 1
        self.right += judged.word == expected
        self.wrong += is_wrong
        self.unjudged += judged.word == "unjudged"
        self.certain += judged.certain
        self.wrong_and_certain += is_wrong and judged.certain

    @property
    def right_share(self) -> float:
        return self.right / self.pairs if self.pairs else 0.0


def read_pairs(file: Path = HARD_PAIRS) -> list[Pair]:
    with file.open(encoding="utf-8") as lines:
        return [Pair(**({"question": ""} | json.loads(line))) for line in lines]


class Checks:
    """The project's checks, each made once."""

    def __init__(self) -> None:
        self._made: dict[str, Callable[[Case], Any]] = {}

    def __call__(self, check: Any, answer: str, reference: str, question: str = "") -> Judged:
        name = json.dumps(check)
        if name not in self._made:
            self._made[name] = make_check(TypeAdapter(AnswerCheck).validate_python(check))
        judgement = self._made[name](Case(answer, reference, question))
        return Judged(judgement.verdict.value, judgement.certain)


def judge_pairs(pairs: Sequence[Pair], checks: Checks) -> list[Judged]:
    return [checks(pair.check, pair.answer, pair.reference, pair.question) for pair in pairs]


def tallies(pairs: Sequence[Pair], judged: Sequence[Judged]) -> dict[str, Tally]:
    """By check."""
    by_check: dict[str, Tally] = defaultdict(Tally)
    for pair, said in zip(pairs, judged, strict=True):
        by_check[pair.check_name].add(pair.expected, said)
    return dict(by_check)


def hardest_kinds(pairs: Sequence[Pair], judged: Sequence[Judged]) -> list[tuple[str, int, int]]:
    """Kinds in which something is not right, the worst first: name, not right, pairs."""
    kinds = [f"{pair.check_name}: {pair.kind}" for pair in pairs]
    missed = Counter(kind for kind, pair, said in zip(kinds, pairs, judged, strict=True) if said.word != pair.expected)
    counts = Counter(kinds)
    return [(kind, number, counts[kind]) for kind, number in missed.most_common()]
