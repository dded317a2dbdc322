"""Strategies that were trained on different rows, because one form of the responses kept fewer than another."""

from sftkey_dist.data.example import TOO_LONG
from sftkey_dist.report.comparison import Comparison, ComparisonRow
from sftkey_dist.report.numbers import listed
from sftkey_dist.run_dir.artifacts.run import SetReport

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
    kept = [of.kept or 0 for of in by_set]
    if not kept or min(kept) >= (1 - _NOTED_SHARE) * max(kept):
        return ""
    trained = "; ".join(f"{listed(labels)} on {_in_words(of)}" for of, labels in by_set.items())
    too_long = any(dropped.reason == TOO_LONG for of in by_set for dropped in of.dropped or ())
    remedy = "raise data.max_length_tokens" if too_long else "mend the dropped rows, which the data report names,"
    return (
        f"Strategies were trained on different rows: {trained}. Their differences may come from the rows; {remedy} to "
        f"compare them on the same ones."
    )


def _in_words(of: SetReport) -> str:
    most = max(of.dropped or (), key=lambda dropped: dropped.count, default=None)
    why = f" ({most.count:,} dropped as {most.reason})" if most is not None else ""
    return f"{of.kept:,} rows{why}"
