"""Converts the rows of a source to examples and refusals."""

import hashlib
from collections.abc import Callable, Iterator

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters import make_adapter
from sftkey_dist.data.columns import RowError, template_arguments
from sftkey_dist.data.content import Adapt, Row
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.rows.shard import Shard
from sftkey_dist.data.rows.shards import find_shards, read_shard


def shards_of(source: SourceConfig, shard_rows: int) -> list[Shard]:
    """The shards of a source; a generated source is a single shard.

    Raises:
        DataError: A file or the hub data set cannot be read at all.
    """
    if source.adapter == "decision_memos":
        return [Shard("", 0, source.limit or 0, 0, source.limit or 0)]
    return find_shards(source, shard_rows)


def read_examples(source: SourceConfig, contract: ResponseContract, shard: Shard) -> Iterator[Example | Refusal]:
    """Yield an example, or a refusal with its reason, for every row of a shard.

    Raises:
        DataError: The file can no longer be read.
        ConfigError: The adapter cannot provide a segment that the contract requires.
    """
    adapt = _adapter(source, contract)
    if adapt is None:
        yield from generate_memos(source.split, shard.num_rows, source.seed, lists_points=source.lists_points)
        return
    for place, row in read_shard(source, shard):
        yield row if isinstance(row, Refusal) else _example(place, row, adapt)


def copies_of(source: SourceConfig) -> Callable[[Example], int]:
    """Returns how often a mixture uses an example: the integer part of `weight`, plus one for a seeded share of
    them."""
    whole = int(source.weight)
    share = source.weight - whole
    if not share:
        return lambda example: whole
    salt = f"{source.seed}/".encode()

    def copies(example: Example) -> int:
        number = hashlib.blake2b(salt + example.id.encode(), digest_size=8).digest()
        return whole + (int.from_bytes(number, "big") < share * 2**64)

    return copies


def _adapter(source: SourceConfig, contract: ResponseContract) -> Adapt | None:
    return None if source.adapter == "decision_memos" else make_adapter(source, contract)


def _example(place: str, row: Row, adapt: Adapt) -> Example | Refusal:
    try:
        content = adapt(row)
        arguments = template_arguments(row)
    except RowError as error:
        return Refusal(place, error.reason, str(error))
    return Example(
        place, content.prompt, content.values, content.history, content.left_out, template_arguments=arguments
    )
