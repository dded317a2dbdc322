"""The most frequent reference answer: a model that always gave it would be right that often without reading."""

from dataclasses import dataclass
from typing import Self

from sftkey_dist.evaluation.answers.text import normalized
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.visible import on_one_line

_MIN_SHARE = 0.1
"""Below it, always giving one answer is no rival."""
_LONGEST = 40


@dataclass(frozen=True)
class CommonestAnswer:
    """The most frequent reference answer of the questions of a comparison.

    Attributes:
        text: the answer; of several key segments, joined by a slash.
        share: share of the questions whose reference it is.
        not_above: labels of strategies whose accuracy is not higher beyond its interval.
    """

    text: str
    share: float
    not_above: tuple[str, ...]

    @classmethod
    def of(cls, comparison: Comparison) -> Self | None:
        """Find it; None if all references are the same, no answer is frequent, or there are several test sets."""
        if len({name for row in comparison.rows for name in row.by_data_set}) > 1:
            return None
        references: dict[tuple[str, str], tuple[str, ...]] = {}
        for label, row in zip(comparison.labels, comparison.rows, strict=True):
            for record in comparison.records[label]:
                found = (record.reference.get(name, "").strip() for name in row.key_segments)
                references.setdefault((record.id, record.prompt), tuple(filter(None, found)))
        alike: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for texts in references.values():
            alike.setdefault(_as_compared(texts), []).append(texts)
        if len(alike) < 2:
            return None
        commonest = max(alike.values(), key=len)
        share = len(commonest) / len(references)
        if share < _MIN_SHARE:
            return None
        rows = zip(comparison.labels, comparison.rows, strict=True)
        not_above = tuple(label for label, row in rows if not row.scores.accuracy_interval[0] > share)
        return cls(" / ".join(commonest[0]), share, not_above)

    def in_words(self) -> str:
        """One sentence, in plain text."""
        text = on_one_line(self.text)
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        first = f'"{shown}" alone would be the right answer to {100 * self.share:.1f} % of the questions'
        if not self.not_above:
            return f"{first}."
        return f"{first}; not right more often than that beyond chance: {', '.join(self.not_above)}."


def _as_compared(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same for answers that differ in case, brackets or a full stop alone, as checks read them."""
    return tuple(map(normalized, texts))
