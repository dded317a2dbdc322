"""Reads the rows again that an encoded store was made from: a store keeps their tokens, and not their texts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.sources import copies_of, read_examples, shards_of
from sftkey_dist.data.encoding.encode import EncodedExample
from sftkey_dist.data.example import Example
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.data.store import EncodedStore, remedy_of
from sftkey_dist.errors import DataError

_PROMPT_AND_RESPONSE = 1
"""Column of a store's hashes."""


@dataclass(frozen=True)
class StoredRow:
    """A row that is in a store.

    Attributes:
        source: number of its source in `data.train`, from 0.
        example: its texts; ``data_set`` is one of `names_of_training_sources`.
        indices: of its examples in the store: one, or several equal ones in a mixture with a weight above 1.
    """

    source: int
    example: Example
    indices: range


def stored_rows(data: DataConfig, contract: ResponseContract, store: EncodedStore) -> Iterator[StoredRow]:
    """The rows of a store, in its order; those that it has refused are passed over.

    Raises:
        DataError: a source cannot be read any more, or has other rows than when it was encoded.
    """
    ids, position = store.ids, 0
    for number, (source, name) in enumerate(zip(data.train_sources, data.names_of_training_sources, strict=True)):
        for example, copies in _drawn(source, data, contract):
            if position < len(ids) and _is_same(example, ids[position], store.hashes[position]):
                yield StoredRow(number, replace(example, data_set=name), range(position, position + copies))
                position += copies
    if position < len(ids):
        raise DataError(f"{ids[position]}: the row is not what it was when it was encoded; {remedy_of(store.path)}")


def encoded_row(store: EncodedStore, row: StoredRow) -> EncodedExample:
    """A row as the store has it."""
    ids, segments = store.example(row.indices.start)
    return EncodedExample(row.example.id, ids.tolist(), _runs(segments), row.example.loss_weight)


def _is_same(example: Example, stored_id: str, hashes: np.ndarray) -> bool:
    """Whether a stored example is at the same line, in a file that may have been moved, with the same texts."""
    is_at_same_line = _line(stored_id) == _line(example.id)
    return is_at_same_line and bool(hashes[_PROMPT_AND_RESPONSE] == example_hashes(example)[_PROMPT_AND_RESPONSE])


def _line(example_id: str) -> str:
    """The end of ``path:12, message 3`` or ``path#12``, without the path."""
    return re.split("[:#]", example_id)[-1]


def _drawn(source: SourceConfig, data: DataConfig, contract: ResponseContract) -> Iterator[tuple[Example, int]]:
    """The usable rows of a source, and how often the mixture has each."""
    copies = copies_of(source)
    for shard in shards_of(source, data.shard_rows):
        for item in read_examples(source, contract, shard):
            if isinstance(item, Example) and (times := copies(item)):
                yield item, times


def _runs(segments: np.ndarray | Sequence[int]) -> list[tuple[int, int]]:
    return [(int(segment), len(list(run))) for segment, run in groupby(segments)]
