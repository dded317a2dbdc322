"""A shard, which is a range of rows that any process can read independently, and the rows that it yields."""

from collections.abc import Iterator
from dataclasses import dataclass

from sftkey_dist.data.adapters.content import Row
from sftkey_dist.data.example import Refusal

RawRows = Iterator[tuple[str, Row | Refusal]]


@dataclass(frozen=True)
class Shard:
    """A range of rows of one file or hub data set.

    Attributes:
        path: path of the file; empty for a hub data set.
        first_line: number of its first line (.jsonl, .csv).
        num_rows: number of rows.
        start: first byte (.jsonl, .csv) or first row, from 0.
        stop: end of the range of bytes or rows, exclusive.
    """

    path: str
    first_line: int
    num_rows: int
    start: int
    stop: int
