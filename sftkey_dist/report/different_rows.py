"""Strategies that were trained on different rows, because one form of the responses kept fewer than another."""

from sftkey_dist.data.example import TOO_LONG
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.numbers import listed
from sftkey_dist.run_dir.artifacts.run import DroppedCount, SetReport

_NOTED_SHARE = 0.05
"""Of the rows of the form with the most. Fewer that are missing cannot explain much of a difference."""


def different_rows(comparison: Comparison) -> list[str]:
    """A sentence for every run whose strategies were trained on noticeably different numbers of rows."""
    runs: dict[str, dict[str, ComparisonRow]] = {}
    for label, row in zip(comparison.labels, comparison.rows, strict=True):
        runs.setdefault(row.run_dir, {})[label] = row
    return [sentence for rows in runs.values() if (sentence := _of_run(rows))]


def _of_run(rows: dict[str, ComparisonRow]) -> str:
    by_set: dict[SetReport, list[str]] = {}
    for label, row in rows.items():
        if row.train_set is not None and row.train_set.kept is not None:
            by_set.setdefault(row.train_set, []).append(label)
    most = max(by_set, key=lambda of: of.kept or 0, default=None)
    if most is None or min(of.kept or 0 for of in by_set) >= (1 - _NOTED_SHARE) * (most.kept or 0):
        return ""
    causes = {of: _cause(of, most) for of in by_set if of != most}
    trained = "; ".join(
        f"{listed(labels)} on {of.kept:,} rows{_in_words(causes.get(of))}" for of, labels in by_set.items()
    )
    is_too_long = any(cause is not None and cause.reason == TOO_LONG for cause in causes.values())
    remedy = "raise data.max_length_tokens" if is_too_long else "mend the dropped rows, which the data report names,"
    return (
        f"Strategies were trained on different rows: {trained}. Their differences may come from the rows; {remedy} to "
        f"compare them on the same ones."
    )


def _cause(of: SetReport, most: SetReport) -> DroppedCount | None:
    """The reason that cost a set more rows than any other did beside the set with the most."""
    there = {dropped.reason: dropped.count for dropped in most.dropped or ()}
    return max(of.dropped or (), key=lambda dropped: dropped.count - there.get(dropped.reason, 0), default=None)


def _in_words(cause: DroppedCount | None) -> str:
    return "" if cause is None else f" ({cause.count:,} dropped as {cause.reason})"
