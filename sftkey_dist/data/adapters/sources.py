"""Converts the rows of a source to examples and refusals."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from sftkey_dist.config.data import SourceConfig, SplitSource
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.columns import RowError, loss_weight, template_arguments
from sftkey_dist.data.adapters.content import AdaptAll, Content, Row, Unusable
from sftkey_dist.data.adapters.layouts import make_adapter
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.hashes import prompt_hash
from sftkey_dist.data.memos import MemoStyle, generate_memos
from sftkey_dist.data.rows.shard import Shard
from sftkey_dist.data.rows.shards import find_shards, read_shard

_BLANK_LINES_BEFORE = re.compile(r"\A\s*\n")


def shards_of(source: SourceConfig, shard_rows: int) -> list[Shard]:
    """The shards of a source; a generated source is a single shard.

    Raises:
        DataError: A file or the hub data set cannot be read at all.
    """
    if source.adapter == "decision_memos":
        return [Shard("", 0, source.limit or 0, 0, source.limit or 0)]
    return find_shards(source, shard_rows)


def read_examples(source: SourceConfig, contract: ResponseContract, shard: Shard) -> Iterator[Example | Refusal]:
    """Yield an example, or a refusal with its reason, for every row of a shard, or for every trained response in it.

    Of a source that is split, only the rows of its side are read.

    Raises:
        DataError: The file can no longer be read.
        ConfigError: The adapter cannot provide a segment that the contract requires.
    """
    return (item for item, is_here in read_both_sides(source, contract, shard) if is_here)


def read_both_sides(
    source: SourceConfig, contract: ResponseContract, shard: Shard
) -> Iterator[tuple[Example | Refusal, bool]]:
    """Like `read_examples`, with all rows of a source that is split, and whether each is on the source's side.

    Rows that are refused here count on the training side, because they may have no prompt.
    """
    for item in _read(source, contract, shard):
        if isinstance(source, SplitSource):
            yield item, (isinstance(item, Example) and _is_tested(item, source)) == source.is_test
        else:
            yield item, True


def _is_tested(example: Example, source: SplitSource) -> bool:
    text = f"{source.split_seed}/{prompt_hash(example)}"
    number = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(number, "big") < source.test_share * 2**64


def _read(source: SourceConfig, contract: ResponseContract, shard: Shard) -> Iterator[Example | Refusal]:
    adapt = _adapter(source, contract)
    if adapt is None:
        style = MemoStyle(source.lists_points, source.reasoning_length, source.decision_rule)
        yield from generate_memos(source.split, shard.num_rows, source.seed, style)
        return
    for place, row in read_shard(source, shard):
        if isinstance(row, Refusal):
            yield row
        else:
            yield from _examples(place, row, adapt, source.loss_weight_column)


def copies_of(source: SourceConfig) -> Callable[[Example], int]:
    """Returns how often a mixture uses an example: the integer part of `weight`, plus one for a seeded share of them.

    The share depends on the names of files, but not on the folders that they are in.
    """
    whole = int(source.weight)
    share = source.weight - whole
    if not share:
        return lambda example: whole
    salt = f"{source.seed}/".encode()

    def copies(example: Example) -> int:
        number = hashlib.blake2b(salt + example.id.rpartition("/")[2].encode(), digest_size=8).digest()
        return whole + (int.from_bytes(number, "big") < share * 2**64)

    return copies


def _adapter(source: SourceConfig, contract: ResponseContract) -> AdaptAll | None:
    return None if source.adapter == "decision_memos" else make_adapter(source, contract)


def _examples(place: str, row: Row, adapt: AdaptAll, weight_column: str) -> list[Example | Refusal]:
    try:
        contents = adapt(row)
        arguments = template_arguments(row)
        weight = loss_weight(row, weight_column) if weight_column else 1.0
    except RowError as error:
        return [Refusal(place, error.reason, str(error))]
    found = [_example(place, content, arguments, weight) for content in contents]
    examples = [item for item in found if isinstance(item, Example)]
    return [
        replace(item, last_turn=examples[-1]) if isinstance(item, Example) and item is not examples[-1] else item
        for item in found
    ]


def _trimmed(text: str) -> str:
    """The text of a segment without white space around it, which would be trained as tokens of the answer.

    The indentation of a first line stays if there are others, since it has a meaning in code.
    """
    text = _BLANK_LINES_BEFORE.sub("", text.rstrip())
    return text if "\n" in text else text.lstrip()


def _example(
    place: str, content: Content | Unusable, arguments: Mapping[str, object], weight: float
) -> Example | Refusal:
    name = place if content.message is None else f"{place}, message {content.message}"
    if isinstance(content, Unusable):
        return Refusal(name, content.reason, content.detail)
    return Example(
        name,
        content.prompt,
        {segment: _trimmed(text) for segment, text in content.values.items()},
        content.history,
        content.left_out,
        template_arguments=arguments,
        tool_turns=content.tool_turns,
        tools=content.tools,
        loss_weight=weight,
    )
