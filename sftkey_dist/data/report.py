"""What became of the data: rows kept, rows dropped by reason, lengths per segment."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sftkey_dist.data.example import Refusal

_EXAMPLES_PER_REASON = 5
_QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class DroppedRows:
    """Rows lost for one reason, with the first few by name."""

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class LengthSummary:
    """Tokens of one segment over all kept examples."""

    segment: str
    mean: float
    quantiles: dict[str, int]


@dataclass(frozen=True)
class SourceReport:
    """What became of the rows of a set."""

    name: str
    rows: int
    kept: int
    dropped: tuple[DroppedRows, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)

    def one_line(self) -> str:
        """The report in a line."""
        dropped = ", ".join(f"{item.count:,} dropped as {item.reason}" for item in self.dropped) or "none dropped"
        return f"data {self.name}: {self.kept:,} of {self.rows:,} rows kept, {dropped}"


@dataclass(frozen=True)
class DataReport(SourceReport):
    """The report of an encoded set."""

    digest: str
    total_tokens: int
    key_share_of_response: float
    lengths: tuple[LengthSummary, ...]

    def one_line(self) -> str:
        """The report in a line."""
        return (
            f"{super().one_line()}; {self.total_tokens:,} tokens, "
            f"key tokens {self.key_share_of_response:.1%} of the response"
        )


def summarize_source(name: str, kept: int, refusals: Sequence[Refusal]) -> SourceReport:
    """The report of a set that is not encoded."""
    return SourceReport(name, kept + len(refusals), kept, _by_reason(refusals))


def summarize(
    name: str,
    digest: str,
    refusals: Sequence[Refusal],
    segment_names: Sequence[str],
    key_segments: Sequence[str],
    segment_counts: np.ndarray,
) -> DataReport:
    """Build the report from ``segment_counts[N, S]`` and the refusals."""
    totals = segment_counts.sum(axis=0, dtype=np.int64)
    response_tokens = int(totals.sum() - totals[segment_names.index("prompt")])
    key_tokens = int(sum(totals[segment_names.index(segment)] for segment in key_segments))
    columns = {"all": segment_counts.sum(axis=1)} | {
        segment: segment_counts[:, i] for i, segment in enumerate(segment_names)
    }
    return DataReport(
        name=name,
        digest=digest,
        rows=len(segment_counts) + len(refusals),
        kept=len(segment_counts),
        dropped=_by_reason(refusals),
        total_tokens=int(totals.sum()),
        key_share_of_response=key_tokens / max(1, response_tokens),
        lengths=tuple(_lengths(segment, column) for segment, column in columns.items() if column.any()),
    )


def _by_reason(refusals: Sequence[Refusal]) -> tuple[DroppedRows, ...]:
    reasons = sorted({refusal.reason for refusal in refusals})
    groups = [[refusal for refusal in refusals if refusal.reason == reason] for reason in reasons]
    return tuple(
        DroppedRows(group[0].reason, len(group), tuple(f"{r.id}: {r.detail}" for r in group[:_EXAMPLES_PER_REASON]))
        for group in groups
    )


def _lengths(segment: str, column: np.ndarray) -> LengthSummary:
    quantiles = {f"p{quantile:.0%}".rstrip("%"): int(np.quantile(column, quantile)) for quantile in _QUANTILES}
    return LengthSummary(segment, float(column.mean()), quantiles)
