"""How often the default rules accept a wrong cut, and how many rows they leave to a person.

``python -m tests.benchmarks.segmenting [--data FOLDER] [--json OUT]``; the messy responses are the project's own,
FOLDER holds ``gsm8k``, ``aqua``, ``minerva_math`` and ``model_outputs``.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from sftkey_dist.data.segmenting.answer import same_answer
from sftkey_dist.data.segmenting.cut import ANSWER, Cut, NotCut
from sftkey_dist.data.segmenting.decision import cut_response
from sftkey_dist.data.segmenting.rules import resolve_rules
from tests.benchmarks.figures import Figure, arguments, console, publish

MESSY = Path(__file__).parents[1] / "assets" / "messy_responses.jsonl"
REVIEW = "review"
DEFAULT = resolve_rules(("default",))
MAX_WRONG_PERCENT, MAX_REVIEWED_PERCENT = 0.5, 10.0


@dataclass(frozen=True)
class Response:
    """A response, with the answer that is written in it, ``review`` where a person must decide, None where unknown."""

    text: str
    expected: str | None


@dataclass
class Tally:
    """What becomes of a source's rows; a row is wrongly accepted with another answer, or where a person must decide."""

    rows: int = 0
    with_answer: int = 0
    accepted: int = 0
    right: int = 0
    wrong: int = 0
    reviewed_with_answer: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    mistakes: list[str] = field(default_factory=list)

    def add(self, response: Response, is_same: Callable[[str, str], bool]) -> None:
        found = cut_response(response.text, DEFAULT)
        self.rows += 1
        self.with_answer += response.expected not in (None, REVIEW)
        if isinstance(found, Cut) and found.doubt is None:
            self._accept(response, found.values[ANSWER], is_same)
            return
        problem = found if isinstance(found, NotCut) else found.doubt
        self.reasons[problem.reason if problem else ""] += 1
        self.reviewed_with_answer += response.expected not in (None, REVIEW)

    def _accept(self, response: Response, answer: str, is_same: Callable[[str, str], bool]) -> None:
        self.accepted += 1
        if response.expected is None:
            return
        is_right = response.expected != REVIEW and is_same(answer, response.expected)
        self.right += is_right
        self.wrong += not is_right
        if not is_right:
            self.mistakes.append(f"{answer!r}, not {response.expected!r}: …{response.text[-80:]!r}")

    @property
    def wrong_percent(self) -> float:
        """Of the rows accepted whose right answer is known."""
        return 100 * self.wrong / max(1, self.right + self.wrong)

    @property
    def reviewed_percent(self) -> float:
        """Of the rows in which one answer is written."""
        return 100 * self.reviewed_with_answer / max(1, self.with_answer)


def tally(responses: Iterable[Response], is_same: Callable[[str, str], bool] = str.__eq__) -> Tally:
    """Cut every response by the default rules."""
    result = Tally()
    for response in responses:
        result.add(response, is_same)
    return result


def messy() -> Iterator[Response]:
    """Shapes of responses times contents, written by hand; see ``shape`` and ``language`` of each line."""
    for row in _rows(MESSY):
        yield Response(row["response"], row["expected"])


def gsm8k(data: Path) -> Iterator[Response]:
    for split in ("train", "test"):
        for row in _rows(data / "gsm8k" / f"{split}.jsonl"):
            yield Response(row["answer"], row["answer"].rpartition("####")[2].strip())


def minerva_math(data: Path) -> Iterator[Response]:
    r"""The answer is known where there is one ``\boxed{}`` without further braces."""
    for row in _rows(data / "minerva_math" / "test.jsonl"):
        boxes = re.findall(r"\\boxed\{([^{}]*)\}", row["solution"])
        is_known = len(boxes) == 1 == row["solution"].count("\\boxed")
        yield Response(row["solution"], boxes[0].strip() if is_known else None)


def aqua(data: Path) -> Iterator[Response]:
    """Rationales; the answer is known where the last line ends in the letter of the right option."""
    for row in _rows(data / "aqua" / "test.jsonl"):
        last = row["rationale"].rstrip(" .)\n")
        is_named = re.search(rf"(?i:answer|ans|option)\W*{row['correct']}\Z", last)
        yield Response(row["rationale"], row["correct"] if is_named else None)


def gsm8k_outputs(data: Path) -> Iterator[Response]:
    """Models' solutions; the answer is known where the last line is ``A: …``."""
    for row in _rows(data / "model_outputs" / "gsm8k.jsonl"):
        last = row["output"].rstrip().rpartition("\n")[2]
        yield Response(row["output"], last.removeprefix("A: ") if last.startswith("A: ") else None)


def mmlu_pro_outputs(data: Path) -> Iterator[Response]:
    """Models' outputs; the answer is known where they end in "The answer is (B)." after other words."""
    for row in _rows(data / "model_outputs" / "mmlu_pro.jsonl"):
        ending = re.search(r"(?:the (?:final )?answer is )(\([A-J]\))\W*\Z", row["output"], re.IGNORECASE)
        says_more = ending is not None and len(row["output"][: ending.start()].split()) > 1
        yield Response(row["output"], None if ending is None else ending[1] if says_more else REVIEW)


def main() -> None:
    options = arguments(__doc__ or "", _options)
    sources: dict[str, Tally] = {"messy responses": tally(messy())}
    if options.data:
        for name, read in REAL.items():
            sources[name] = tally(read(options.data), same_answer if read is aqua else str.__eq__)
    console.print(_table(sources))
    for name, result in sources.items():
        for mistake in result.mistakes:
            console.print(f"{name}: wrongly accepted {mistake}", markup=False)
    publish("Segmenting by rules", _figures(sources), options.json)


REAL: dict[str, Callable[[Path], Iterator[Response]]] = {
    "GSM8K": gsm8k,
    "Minerva": minerva_math,
    "AQuA": aqua,
    "outputs, GSM8K": gsm8k_outputs,
    "outputs, MMLU-Pro": mmlu_pro_outputs,
}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder of the data sets")


def _table(sources: dict[str, Tally]) -> Table:
    table = Table(title="Default rules")
    headings: Sequence[str] = (
        "source",
        "rows",
        "accepted",
        "right",
        "wrong",
        "one answer",
        "of these to review",
        "reasons",
    )
    for heading in headings:
        table.add_column(heading)
    for name, result in sources.items():
        table.add_row(
            name,
            *(f"{value:,}" for value in (result.rows, result.accepted, result.right)),
            f"{result.wrong:,} ({result.wrong_percent:.2f} %)",
            f"{result.with_answer:,}",
            f"{result.reviewed_with_answer:,} ({result.reviewed_percent:.2f} %)",
            ", ".join(f"{reason} {count}" for reason, count in result.reasons.most_common()),
        )
    return table


def _figures(sources: dict[str, Tally]) -> dict[str, Figure]:
    figures = {}
    for name, result in sources.items():
        figures[f"{name}: wrongly accepted"] = Figure(result.wrong_percent, "%", f"<= {MAX_WRONG_PERCENT}")
        figures[f"{name}: sent to review"] = Figure(
            result.reviewed_percent,
            "%",
            f"<= {MAX_REVIEWED_PERCENT}",
            against=f"{result.with_answer:,} with one answer",
        )
    return figures


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
