"""Real outputs of models whose right reading is known: GSM8K solutions and MMLU-Pro reasoning."""

import json
import re
import string
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.answers.pairs import Checks, Judged, Tally, Word

_PLAIN = {
    "gsm8k": re.compile(r"A: -?\$?[\d,]+(\.\d+)?"),
    "mmlu_pro": re.compile(r"(The|the) (correct )?answer is:? \(?[A-J]\)?\.?"),
}
_LINES_OF_AN_ENDING = 3
NOT_READ = "read by no pattern"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z(*\\$])|\n+")


@dataclass(frozen=True)
class Output:
    """What a model wrote.

    Attributes:
        source: ``gsm8k`` or ``mmlu_pro``.
        expected: of its final answer; for ``mmlu_pro`` what that repository's pattern read, which can be wrong.
        is_read: whether that pattern read anything; where it did not, `expected` stands for no answer.
    """

    source: str
    check: str
    text: str
    reference: str
    question: str
    expected: Word
    is_read: bool = True

    @property
    def ending(self) -> str:
        """Whether it ends with the answer in the form that its prompt asked for."""
        if not self.is_read:
            return NOT_READ
        is_plain = _PLAIN[self.source].fullmatch(self.readings()["last sentence"])
        return "plain ending" if is_plain else "other ending"

    def readings(self) -> dict[str, str]:
        """The texts that could be given to the check as the answer."""
        lines = self.text.strip().splitlines() or [""]
        sentences = [part for part in _SENTENCE_END.split(self.text.strip()) if part.strip()] or [""]
        if self.source == "gsm8k":
            return {"last sentence": lines[-1].strip(), "whole output": self.text}
        return {
            "last sentence": sentences[-1].strip(),
            f"last {_LINES_OF_AN_ENDING} lines": "\n".join(lines[-_LINES_OF_AN_ENDING:]),
            "whole output": self.text,
        }


@dataclass(frozen=True)
class Disagreement:
    """A verdict that is not what was known of the output."""

    output: Output
    reading: str
    judged: Judged


def read_outputs(folder: Path) -> Iterator[Output]:
    for row in _rows(folder / "gsm8k.jsonl"):
        expected: Word = "correct" if row["is_correct"] else "incorrect"
        yield Output("gsm8k", "numeric", row["output"], row["reference"], row["question"], expected)
    for row in _rows(folder / "mmlu_pro.jsonl"):
        expected = "correct" if row["pattern_read"] == row["reference"] else "incorrect"
        listed = (f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, row["options"], strict=False))
        question = "\n".join([row["question"], *listed])
        is_read = row["pattern_read"] is not None
        yield Output("mmlu_pro", "option", row["output"], row["reference"], question, expected, is_read)


def judge_outputs(folder: Path, checks: Checks) -> tuple[dict[tuple[str, str, str], Tally], list[Disagreement]]:
    """Tallies by source, ending and reading, and every verdict that disagrees."""
    by_reading: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
    disagreements = []
    for output in read_outputs(folder):
        for reading, text in output.readings().items():
            judged = checks(output.check, text, output.reference, output.question)
            by_reading[output.source, output.ending, reading].add(output.expected, judged)
            if judged.word not in (output.expected, "unjudged"):
                disagreements.append(Disagreement(output, reading, judged))
    return dict(by_reading), disagreements


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
