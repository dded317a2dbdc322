"""Reads whole sources, such as test sets, into memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from sftkey_dist.config.data import SourceConfig, SplitSource
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.sources import copies_of, read_both_sides, shards_of
from sftkey_dist.data.duplicates import DUPLICATE
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.data.malformed import malformed, require_few
from sftkey_dist.errors import DataError

ROWS_AT_A_TIME = 4096

ReferenceProblem = Callable[[Example, str], str | None]
"""Returns why no answer could be compared with the reference of a segment, or None."""


def read_all(
    name: str,
    sources: Sequence[SourceConfig],
    contract: ResponseContract,
    max_bad_row_share: float,
    problem_with: ReferenceProblem = lambda example, segment: None,
    *,
    drop_duplicates: bool = False,
) -> tuple[list[Example], list[Refusal]]:
    """Read whole sources, such as test sets, into memory.

    Of a source that is split, the rows of its side are returned, and the malformed rows of both sides count.

    Args:
        name: name of the sources in messages.
        sources: the sources to read.
        contract: the contract that references must follow.
        max_bad_row_share: maximum share of malformed rows.
        problem_with: see `ReferenceProblem`.
        drop_duplicates: whether the side of a split is without the rows that repeat an earlier one.

    Raises:
        DataError: A source cannot be read or is empty, or there are more malformed rows than allowed.
    """
    found = [_read_source(source, contract, problem_with, drop_duplicates) for source in sources]
    for source, of_source in zip(sources, found, strict=True):
        _require_usable(name, source, of_source, max_bad_row_share)
    bad = [refusal for each in found for refusal in each.malformed]
    num_rows = sum(each.num_rows for each in found)
    require_few(_name_of_rows(name, sources[0]), bad, num_rows, max_bad_row_share)
    return list(chain(*(each.examples for each in found))), list(chain(*(each.refusals for each in found)))


@dataclass
class _Found:
    """What a source contains, on its side and, if it is split, on the other one."""

    examples: list[Example] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    refused_beside: list[Refusal] = field(default_factory=list)
    usable_beside: int = 0

    @property
    def malformed(self) -> list[Refusal]:
        """The malformed rows of both sides."""
        return malformed([*self.refused_beside, *self.refusals])

    @property
    def num_rows(self) -> int:
        """Rows of both sides."""
        return len(self.examples) + len(self.refusals) + len(self.refused_beside) + self.usable_beside


def _read_source(
    source: SourceConfig, contract: ResponseContract, problem_with: ReferenceProblem, drop_duplicates: bool
) -> _Found:
    found, rows = _Found(), _rows(source, contract, problem_with)
    for item, is_here in _without_repeated(rows) if drop_duplicates and isinstance(source, SplitSource) else rows:
        if isinstance(item, Refusal):
            (found.refusals if is_here else found.refused_beside).append(item)
        elif is_here:
            found.examples.append(item)
        else:
            found.usable_beside += 1
    return found


def _require_usable(name: str, source: SourceConfig, found: _Found, max_bad_row_share: float) -> None:
    """
    Raises:
        DataError: There is no usable row; the message says whether too many are malformed.
    """
    if found.examples:
        return
    name_of_rows = _name_of_rows(name, source)
    require_few(name_of_rows, found.malformed, found.num_rows, max_bad_row_share)
    if not found.num_rows:
        raise DataError(f"data.{name_of_rows}: {source.place} has no usable row")
    raise DataError(f"data.{name}: {source.place} has no usable row{of_side(source)}")


def _name_of_rows(name: str, source: SourceConfig) -> str:
    """The key of the sources that a person would look at: a test set that is held out is part of the training data."""
    return "train" if isinstance(source, SplitSource) else name


def of_side(source: SourceConfig) -> str:
    """What may be the reason if a side of a source has no row, for messages."""
    if not isinstance(source, SplitSource):
        return ""
    side = "that falls to the test set" if source.is_test else "that does not fall to the test set"
    return f" {side} (data.split.test={source.test_share:g}); add rows, or change data.split.test or data.split.seed"


def _rows(
    source: SourceConfig, contract: ResponseContract, problem_with: ReferenceProblem
) -> Iterator[tuple[Example | Refusal, bool]]:
    """The rows of a source that its weight leaves in, and whether each is on the source's side."""
    copies = copies_of(source)
    for shard in shards_of(source, ROWS_AT_A_TIME):
        for item, is_here in read_both_sides(source, contract, shard):
            if is_here and isinstance(item, Example):
                item = replace(item, data_set=source.data_set)
                item = _reference_problem(item, contract, problem_with) or item
            if isinstance(item, Refusal) or copies(item):
                yield item, is_here


def _without_repeated(rows: Iterator[tuple[Example | Refusal, bool]]) -> Iterator[tuple[Example | Refusal, bool]]:
    """Refuse the examples of the source's side whose prompt and response are those of an earlier one."""
    firsts: dict[int, str] = {}
    for item, is_here in rows:
        if is_here and isinstance(item, Example):
            _, prompt_and_response, _ = example_hashes(item)
            first = firsts.setdefault(prompt_and_response, item.id)
            item = item if first == item.id else Refusal(item.id, DUPLICATE, f"it repeats {first}")
        yield item, is_here


def _reference_problem(example: Example, contract: ResponseContract, problem_with: ReferenceProblem) -> Refusal | None:
    """Refuse a test row without a usable reference for each required key segment."""
    for segment in contract.key_segments:
        reference = example.values.get(segment.name, "").strip()
        if not reference and segment.required:
            return Refusal(example.id, f"empty_{segment.name}", f"the row has no {segment.name} to compare with")
        problem = segment.check.problem(reference) if segment.check and reference else None
        if problem:
            return Refusal(example.id, f"invalid_{segment.name}", f"{segment.name}: {problem}")
        unreadable = problem_with(example, segment.name) if reference else None
        if unreadable:
            return Refusal(example.id, f"unreadable_{segment.name}", f"{segment.name} {reference[:60]!r}: {unreadable}")
    return None
