"""Which answers were given in place of which, where the answers are a few labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.evaluation.answers.labels import read_label
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord
from sftkey_dist.run_dir.artifacts.run import SETTINGS

OTHER, UNLABELLED = "other / none", "no label"
CONFUSION = (
    "rows are the answers of the references, columns those that were given; an answer counts in the column of its "
    "reference exactly if its verdict is correct"
)
_MAX_OF_CONTRACT, _MAX_OF_REFERENCES = 20, 10
"""Most labels of a table. A contract states that its labels are all answers; references only look like it."""
_LONGEST, _MIN_OUTPUTS_PER_LABEL = 40, 5


@dataclass(frozen=True)
class Confusion:
    """The answers of a strategy for one key segment.

    Attributes:
        strategy: label of the strategy in the comparison.
        segment: name of the key segment.
        heads: the labels, and `OTHER` for answers that are none of them.
        rows: name of each row and the number of outputs in each column; the names are labels, and `UNLABELLED` for
            references that are none of them, where no column says that an answer is right.
    """

    strategy: str
    segment: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


def confusions(comparison: Comparison) -> list[Confusion]:
    """A table per strategy and key segment whose answers the contract or the references enumerate."""
    found = []
    for label, row in zip(comparison.labels, comparison.rows, strict=True):
        records = comparison.records[label]
        for segment in row.key_segments:
            if labels := _of_contract(row, segment) or _of_references(records, segment):
                found.append(_confusion(label, segment, labels, records))
    return found


def _of_contract(row: ComparisonRow, segment: str) -> tuple[str, ...]:
    """The labels that the run's contract allows; none if it does not enumerate them."""
    config = RunDir(Path(row.run_dir)).config
    if not config.is_file():
        return ()
    checks = {each.name: each.check for each in SETTINGS.read(config).contract.segments}
    check = checks.get(segment)
    labels = (check.one_of if check else None) or ()
    return labels if 2 <= len(labels) <= _MAX_OF_CONTRACT else ()


def _of_references(records: Sequence[EvaluationRecord], segment: str) -> tuple[str, ...]:
    """The references, the most frequent first, if they are few and short; none otherwise."""
    counts = Counter(record.reference.get(segment, "").strip() for record in records)
    is_few = 2 <= len(counts) <= min(_MAX_OF_REFERENCES, len(records) // _MIN_OUTPUTS_PER_LABEL)
    is_short = all(0 < len(text) <= _LONGEST and "\n" not in text for text in counts)
    return tuple(text for text, _ in counts.most_common()) if is_few and is_short else ()


def _confusion(strategy: str, segment: str, labels: tuple[str, ...], records: Sequence[EvaluationRecord]) -> Confusion:
    heads = (*labels, OTHER)
    counts = Counter(_cell(record, segment, labels) for record in records)
    rows = [(name, tuple(counts[name, head] for head in heads)) for name in labels]
    unlabelled = tuple(counts[OTHER, head] for head in heads)
    rows += [(UNLABELLED, unlabelled)] if any(unlabelled) else []
    return Confusion(strategy, segment, heads, tuple(rows))


def _cell(record: EvaluationRecord, segment: str, labels: tuple[str, ...]) -> tuple[str, str]:
    """Row and column of an output."""
    expected = _named(record.reference.get(segment, ""), labels)
    if record.fields.get(segment) is Verdict.CORRECT:
        return expected, expected
    given = _named(record.answer.get(segment, ""), labels)
    return expected, OTHER if given == expected else given


def _named(text: str, labels: tuple[str, ...]) -> str:
    found = read_label(text, labels)
    return found.name if found else OTHER
