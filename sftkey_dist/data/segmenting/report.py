"""What became of the rows that were segmented."""

from collections import Counter
from dataclasses import dataclass, field

from sftkey_dist.data.segmenting.cut import Cut, NotCut

_SAMPLES_PER_RULE = 3
_EXAMPLES_PER_REASON = 5


@dataclass
class SegmentReport:
    """Counts of the rows, updated while they are segmented.

    Attributes:
        rows: rows read.
        accepted: accepted rows by rule.
        unsure: rows in the review file by reason.
        failed: rows without a response to segment by reason.
        removed: accepted rows in which a text belongs to no segment, by kind: thinking, a sign-off, a repeated answer.
        examples: the first rows of each reason.
        samples: the first rows of each rule, with their segments.
    """

    rows: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    samples: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """Share of the rows that were accepted."""
        return self.accepted.total() / max(1, self.rows)

    def accept(self, place: str, cut: Cut) -> None:
        """Count an accepted row."""
        self.rows += 1
        self.accepted[cut.rule] += 1
        self.removed.update(cut.removed.keys())
        samples = self.samples.setdefault(cut.rule, [])
        if len(samples) < _SAMPLES_PER_RULE:
            samples.append({"place": place, "segments": dict(cut.values)})

    def refuse(self, place: str, problem: NotCut, counter: Counter[str]) -> None:
        """Count a row that is unsure or has failed."""
        self.rows += 1
        counter[problem.reason] += 1
        examples = self.examples.setdefault(problem.reason, [])
        if len(examples) < _EXAMPLES_PER_REASON:
            examples.append(f"{place}: {problem.detail}")

    def to_json(self) -> dict[str, object]:
        """Plain values for a file."""
        return {"coverage": self.coverage, **vars(self)}
