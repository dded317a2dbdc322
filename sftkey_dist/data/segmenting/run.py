"""Segments the responses of a file.

A row is segmented by the first of these that can: a person's review, the rules, and a language model if one is
configured. Every result is verified before it is accepted: segments are parts of the response, only separators lie
outside them, and the contract can write them. Three files are written, each completely or not at all: the rows with
their segments, a report, and the unsure rows for a person to review.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.adapters.columns import RowError, text
from sftkey_dist.data.adapters.content import Row
from sftkey_dist.data.adapters.values import NoTextError, json_text
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.rows.shards import find_shards, read_shard
from sftkey_dist.data.segmenting.cut import Cut, NotCut
from sftkey_dist.data.segmenting.decision import cut_response
from sftkey_dist.data.segmenting.model import Cutter, ModelCutter
from sftkey_dist.data.segmenting.outputs import (
    SegmentFiles,
    refuse_changed_reviews,
    refuse_own_output,
    require_files,
    write_errors_as_data_errors,
)
from sftkey_dist.data.segmenting.report import SegmentReport
from sftkey_dist.data.segmenting.review import Review, read_reviews
from sftkey_dist.data.segmenting.rules import Rule, resolve_rules
from sftkey_dist.data.segmenting.verify import why_not_writable
from sftkey_dist.endpoint import endpoint_key
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.errors import DataError
from sftkey_dist.files import text_written_whole, write_json_atomically

_ROWS_AT_A_TIME = 16_384
_ROWS_AT_A_TIME_WITH_A_MODEL = 512
"""A model is slow, so progress is shown and replies are saved more often."""
_OWN_FIELDS = ("segments", "segmented_by")

Progress = Callable[[int], Callable[[int], None]]
"""Called with the total number of rows; returns a function that is called with the number of rows that are done."""


def segment_file(
    source: SourceConfig, response_column: str, out: Path, config: SegmentConfig, progress: Progress
) -> tuple[SegmentReport, SegmentFiles]:
    """Segment every row of a source.

    Args:
        source: source of the rows.
        response_column: column of the response.
        out: file for the segmented rows; the other files are written beside it.
        config: rules, contract and endpoint.
        progress: shows the progress.

    Raises:
        DataError: The rows or the review file cannot be read, or the review file was changed meanwhile.
        ConfigError: ``out`` is the source, or no model answers at the endpoint.
    """
    files = SegmentFiles(out)
    refuse_own_output(source, files)
    require_files(files)
    shards = find_shards(source, _ROWS_AT_A_TIME_WITH_A_MODEL if config.endpoint else _ROWS_AT_A_TIME)
    if not shards:
        raise DataError(f"{source.place}: no row to segment")
    ask = (
        ModelCutter(Endpoint(config.endpoint, endpoint_key(config.endpoint)), config.contract, files.replies)
        if config.endpoint
        else None
    )
    reviews = read_reviews(files.review)
    work = _Segmenting(response_column, config.contract, resolve_rules(config.rules), ask, reviews)
    told = progress(sum(shard.num_rows for shard in shards))
    with ExitStack() as stack:
        stack.enter_context(write_errors_as_data_errors(out))
        rows_file, review_file = (stack.enter_context(text_written_whole(path)) for path in (files.out, files.review))
        for shard in shards:
            work.segment(list(read_shard(source, shard)), rows_file, review_file)
            told(work.report.rows)
        work.require_any_row(source)
        work.keep_other_reviews(review_file)
        refuse_changed_reviews(files.review, reviews)
    write_json_atomically(files.report, work.report.to_json())
    return work.report, files


class _Segmenting:
    """Segments batches of rows and counts the results."""

    def __init__(
        self,
        response_column: str,
        contract: ResponseContract,
        rules: Sequence[Rule],
        ask: Cutter | None,
        reviews: Mapping[str, Review],
    ) -> None:
        self.report = SegmentReport()
        self._response_column = response_column
        self._contract = contract
        self._rules = rules
        self._ask = ask
        self._reviews = reviews
        self._met: set[str] = set()
        self._written: set[str] = set()

    def segment(self, batch: Sequence[tuple[str, Row | Refusal]], rows_file: IO[str], review_file: IO[str]) -> None:
        """Segment a batch and write each row to the file where it belongs."""
        rows = list(self._readable(batch))
        reviews = [self._reviews.get(response) for _, _, response in rows]
        self._met.update(response for _, _, response in rows)
        cuts = [self._cut(response, review) for (_, _, response), review in zip(rows, reviews, strict=True)]
        cuts = self._asked([response for _, _, response in rows], cuts)
        for (place, row, response), review, cut in zip(rows, reviews, cuts, strict=True):
            problem = cut.doubt if isinstance(cut, Cut) else cut
            if isinstance(cut, Cut) and problem is None:
                self.report.accept(place, cut)
                _write(rows_file, {**row, "segments": dict(cut.values), "segmented_by": cut.rule})
            elif problem is not None:
                self.report.refuse(place, problem, self.report.unsure)
                if response not in self._written:
                    _write(review_file, self._for_review(place, response, cut, problem, review).to_json())
                    self._written.add(response)

    def require_any_row(self, source: SourceConfig) -> None:
        """An earlier result must not be replaced by nothing because the name of the column is wrong.

        Raises:
            DataError: No row has a text in the column.
        """
        if self.report.failed.total() == self.report.rows:
            (reason, *_) = self.report.failed
            raise DataError(
                f"{source.place}: none of the {self.report.rows:,} rows has a response, for example "
                f"{self.report.examples[reason][0]}; nothing was written. See --response-column; "
                f"conversations are not segmented, but read as they are with adapter: messages"
            )

    def keep_other_reviews(self, review_file: IO[str]) -> None:
        """Keep the work of a person in the file: accepted reviews, and reviews of rows that are not in the input
        now."""
        for response, review in self._reviews.items():
            is_of_use = review.accept or (response not in self._met and any(review.segments.values()))
            if is_of_use and response not in self._written:
                _write(review_file, review.to_json())

    def _readable(self, batch: Sequence[tuple[str, Row | Refusal]]) -> Iterator[tuple[str, Row, str]]:
        """Place, row and response of the rows with a response; the others are counted as failed."""
        for place, row in batch:
            if isinstance(row, Refusal):
                self.report.refuse(place, NotCut(row.reason, row.detail), self.report.failed)
                continue
            try:
                taken = next((name for name in _OWN_FIELDS if name in row), None)
                if taken:
                    raise RowError("already_segmented", f"the row has a field {taken!r}; rename it")
                yield place, row, text(row, self._response_column)
            except RowError as error:
                self.report.refuse(place, NotCut(error.reason, str(error)), self.report.failed)

    def _cut(self, response: str, review: Review | None) -> Cut | NotCut:
        reviewed = review.cut(self._contract) if review else None
        if reviewed is not None:
            return reviewed
        cut = cut_response(response, self._rules)
        if isinstance(cut, NotCut) or cut.doubt:
            return cut
        problem = why_not_writable(cut.values, self._contract)
        return NotCut("not_writable", f"rule {cut.rule}: {problem}") if problem else cut

    def _asked(self, responses: Sequence[str], cuts: list[Cut | NotCut]) -> list[Cut | NotCut]:
        """The results, with the model's in place of those that are missing or doubtful."""
        if self._ask is None:
            return cuts
        open_rows = [i for i, cut in enumerate(cuts) if _is_open(cut)]
        answers = dict(zip(open_rows, self._ask([responses[i] for i in open_rows]), strict=True))
        return [answers.get(i, cut) for i, cut in enumerate(cuts)]

    def _for_review(
        self, place: str, response: str, cut: Cut | NotCut, problem: NotCut, review: Review | None
    ) -> Review:
        """A line for a person, with what they have written before or, if there is nothing, with the proposal of a
        rule."""
        why = f"{problem.reason}: {problem.detail}"
        if review is not None:
            return replace(review, place=place, why=why, accept=False)
        proposal = cut if isinstance(cut, Cut) else Cut({}, "")
        segments = {segment.name: proposal.values.get(segment.name, "") for segment in self._contract.segments}
        outside, candidates = tuple(proposal.removed.values()), tuple(map(vars, proposal.candidates))
        return Review(place, why, response, False, segments, outside, candidates)


_CLOSED = ("review_not_verified", "unclosed_thinking")


def _is_open(cut: Cut | NotCut) -> bool:
    """Whether to ask the model: no person has decided yet, and the response does not end before its answer."""
    return cut.doubt is not None if isinstance(cut, Cut) else cut.reason not in _CLOSED


def _write(file: IO[str], content: Mapping[str, object]) -> None:
    line = f"{{{', '.join(f'{json.dumps(name)}: {_text_or_null(value)}' for name, value in content.items())}}}"
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(json.loads(line))  # a lone surrogate in another column can only be escaped
    file.write(line + "\n")


def _text_or_null(value: object) -> str:
    """The JSON text of a column's value; null for a value without text, such as NaN."""
    try:
        return json_text(value)
    except NoTextError:
        return "null"
