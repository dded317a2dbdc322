"""Malformed rows: which refusals are due to the row itself, and whether there are too many of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftkey_dist.data.building.task import IN_TEST
from sftkey_dist.data.duplicates import DUPLICATE
from sftkey_dist.data.example import TOO_LONG, Refusal, by_reason
from sftkey_dist.errors import DataError

_ROWS_NOT_MALFORMED = frozenset({TOO_LONG, IN_TEST, DUPLICATE})
"""Reasons that are due to the user's settings and not to the row. They never stop a preparation."""
_FEW = 3


@dataclass(frozen=True)
class HeldOut:
    """Rows of the training sources that are held out as a test set.

    Attributes:
        num_rows: all of them.
        malformed: those that are malformed.
    """

    num_rows: int = 0
    malformed: tuple[Refusal, ...] = ()


NONE_HELD_OUT = HeldOut()


def malformed(refusals: Iterable[Refusal]) -> list[Refusal]:
    """The refusals that are due to the row itself."""
    return [refusal for refusal in refusals if refusal.reason not in _ROWS_NOT_MALFORMED]


def require_few(name: str, rows: Sequence[Refusal], num_rows: int, max_bad_row_share: float) -> None:
    """Stop when more rows are malformed than allowed.

    Args:
        name: name of the sources below `data`, for messages.
        rows: the malformed rows.
        num_rows: all rows of the sources, with these.
        max_bad_row_share: maximum share of malformed rows.

    Raises:
        DataError: There are more; the message describes the first one, and names the first few of each reason.
    """
    if len(rows) > max_bad_row_share * num_rows:
        first = rows[0]
        remedy = (
            "correct them or the source's keys"
            if 2 * len(rows) > num_rows  # no share that anybody wants to lose
            else f"correct them, or allow a larger share to be dropped with data.max_bad_row_share, now "
            f"{max_bad_row_share:g}"
        )
        raise DataError(
            f"{first.id}: {first.reason}: {first.detail} (at least {len(rows)} of {num_rows} rows of data.{name} are "
            f"malformed{f': {_first_few(rows)}' if len(rows) > 1 else ''}; {remedy})"
        )


def _first_few(rows: Sequence[Refusal]) -> str:
    """The number and the first few of the rows, for each reason."""
    return ", ".join(
        f"{len(of)} {reason} ({', '.join(row.id for row in of[:_FEW])}{', …' * (len(of) > _FEW)})"
        for reason, of in by_reason(rows).items()
    )
