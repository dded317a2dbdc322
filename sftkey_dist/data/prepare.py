"""Builds encoded stores on disk from a configuration, one per form, and reuses stores with the same digest."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING

from sftkey_dist.config.data import DataConfig, SourceConfig, SplitSource
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.duplicates import DUPLICATE
from sftkey_dist.data.encode import ENCODER_VERSION
from sftkey_dist.data.example import TOO_LONG, Example, Refusal
from sftkey_dist.data.parallel import run_on_cores
from sftkey_dist.data.parts import PartSummary
from sftkey_dist.data.rows.files import file_format, local_files
from sftkey_dist.data.rows.shards import content_digest
from sftkey_dist.data.sources import copies_of, read_examples, shards_of
from sftkey_dist.data.store import EncodedStore, is_store
from sftkey_dist.data.store_builder import StoreBuilder
from sftkey_dist.data.task import IN_TEST, Encoding, EncodingTask, cached_tokenizer, encode_part, prompt_encoder
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS_AT_A_TIME = 4096
_ROWS_NOT_MALFORMED = frozenset({TOO_LONG, IN_TEST, DUPLICATE})
"""Reasons that are due to the user's settings and not to the row. They never stop a preparation."""

Progress = Callable[[int], None]
"""Called with the number of rows that are done."""


Runner = Callable[[Callable[[EncodingTask], PartSummary], Sequence[EncodingTask]], Iterator[PartSummary]]
"""Runs tasks somewhere and yields their results in order."""

ReferenceProblem = Callable[[Example, str], str | None]


def read_all(
    name: str,
    sources: Sequence[SourceConfig],
    contract: ResponseContract,
    max_bad_row_share: float,
    problem_with: ReferenceProblem = lambda example, segment: None,
) -> tuple[list[Example], list[Refusal]]:
    """Read whole sources, such as test sets, into memory.

    Args:
        name: name of the sources in messages.
        sources: the sources to read.
        contract: the contract that references must follow.
        max_bad_row_share: maximum share of malformed rows.
        problem_with: returns why no answer could be compared with the reference of a segment, or None.

    Raises:
        DataError: A source cannot be read or is empty, or there are more malformed rows than allowed.
    """
    examples: list[Example] = []
    refusals: list[Refusal] = []
    for source in sources:
        copies, before = copies_of(source), len(examples)
        for shard in shards_of(source, _ROWS_AT_A_TIME):
            for item in read_examples(source, contract, shard):
                if isinstance(item, Example):
                    item = replace(item, data_set=source.data_set)
                    item = _reference_problem(item, contract, problem_with) or item
                if isinstance(item, Refusal):
                    refusals.append(item)
                elif copies(item):
                    examples.append(item)
        _check_refusals(name, refusals, len(examples) + len(refusals), max_bad_row_share)
        if len(examples) == before:
            raise DataError(f"data.{name}: {source.place} has no usable row{_of_split(source)}")
    return examples, refusals


def first_examples(sources: Sequence[SourceConfig], contract: ResponseContract, number: int) -> list[Example]:
    """The first usable examples of the sources."""
    rows = (
        item
        for source in sources
        for shard in shards_of(source, _ROWS_AT_A_TIME)
        for item in read_examples(source, contract, shard)
    )
    return list(islice((item for item in rows if isinstance(item, Example)), number))


def prepare_store(
    name: str,
    data: DataConfig,
    encoding: Encoding,
    run: Runner | None = None,
    progress: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None,
    test_prompts: frozenset[int] = frozenset(),
) -> EncodedStore:
    """Encode the training sources in one form, or reuse a store with the same encoding of the same data.

    Args:
        name: first part of the store's name.
        data: sources of the rows, and limits.
        encoding: how rows are encoded.
        run: runs the tasks that encode the parts; default: on the cores of this machine.
        progress: called with the total number of rows; returns a function that is called with the number of rows that
            are done.
        test_prompts: hashes of prompts (the first of `example_hashes`) whose rows are dropped.

    Raises:
        DataError: A source cannot be read, too many rows are malformed, or no row is left.
    """
    encoding = _with_one_date(encoding)
    inputs = _inputs(data, encoding, test_prompts)
    digest = digest_json(inputs)
    path = data.store_dir.absolute() / f"{name}-{encoding.form.value}-{digest[:16]}"
    if not is_store(path):
        shards = [(source, shard) for source in data.train_sources for shard in shards_of(source, data.shard_rows)]
        builder = StoreBuilder(path, encoding.contract.segment_names, [digest, [asdict(shard) for _, shard in shards]])
        tasks = [
            EncodingTask(i, source, shard, encoding, builder, test_prompts) for i, (source, shard) in enumerate(shards)
        ]
        with builder.owned():
            if not is_store(path):  # another process may have built it while this one waited
                _build(name, data, tasks, builder, run or _on_cores(data.num_workers), progress)
                places = [task.source.place for task in tasks]
                builder.finish(places, digest, inputs, drop_duplicates=data.drop_duplicates)
    store = EncodedStore(path)
    _check_refusals(name, _malformed(store.refusals), _num_rows(store), data.max_bad_row_share)
    return store


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Digest of everything in a tokenizer that determines token ids."""
    return digest_json(
        [
            tokenizer.backend_tokenizer.to_str(),
            getattr(tokenizer, "chat_template", None),
            {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        ]
    )


def _build(
    name: str,
    data: DataConfig,
    tasks: Sequence[EncodingTask],
    builder: StoreBuilder,
    run: Runner,
    progress: Callable[[int], Callable[[int], None]],
) -> None:
    """Build every missing part, and stop after any part if too many rows have been refused."""
    total = sum(task.shard.num_rows for task in tasks)
    # How many responses the rows contain is only known at the end, and so is the share of those that are malformed.
    has_one_each = all(task.source.trained_turns == "last" for task in tasks)
    report, done, rows, kept = progress(total), 0, 0, 0
    malformed: list[Refusal] = []
    try:
        for task, summary in zip(tasks, run(encode_part, tasks), strict=True):
            done, rows, kept = done + task.shard.num_rows, rows + summary.num_rows, kept + summary.num_examples
            malformed += _malformed(summary.refusals)
            if has_one_each:
                _check_refusals(name, malformed, total, data.max_bad_row_share)
            report(done)
        if kept == 0:
            raise DataError(_nothing_left(name, data, rows))
    except DataError:
        builder.discard()  # once the rows are corrected, the parts will be different
        raise


def _malformed(refusals: Iterable[Refusal]) -> list[Refusal]:
    return [refusal for refusal in refusals if refusal.reason not in _ROWS_NOT_MALFORMED]


def _num_rows(store: EncodedStore) -> int:
    return sum(source.rows for source in store.sources)


def _check_refusals(name: str, rows: Sequence[Refusal], num_rows: int, max_bad_row_share: float) -> None:
    """Stop when more rows are malformed than allowed."""
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
            f"malformed; {remedy})"
        )


def _nothing_left(name: str, data: DataConfig, num_rows: int) -> str:
    places = ", ".join(source.place for source in data.train)
    if num_rows == 0:
        return f"data.{name}: {places} has no usable row{_of_split(data.train_sources[0])}"
    dropped = " or in a test set (data.drop_overlap)" if data.drop_overlap else ""
    return f"data.{name}: every row of {places} is longer than data.max_length_tokens={data.max_length_tokens}{dropped}"


def _of_split(source: SourceConfig) -> str:
    """What may be the reason if a side of a source has no row, for messages."""
    if not isinstance(source, SplitSource):
        return ""
    side = "that falls to the test set" if source.is_test else "that does not fall to the test set"
    return f" {side} (data.split.test={source.test_share:g}); add rows, or change data.split.test or data.split.seed"


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


def _with_one_date(encoding: Encoding) -> Encoding:
    """Fix the date for all parts, in case the template prints the current date and no date is configured."""
    return replace(encoding, prompt=encoding.prompt.model_copy(update={"date": prompt_encoder(encoding).date}))


def _inputs(data: DataConfig, encoding: Encoding, test_prompts: frozenset[int]) -> dict[str, object]:
    """Everything that an encoding depends on, for its digest, which is that of older stores if no row is dropped."""
    dropped: dict[str, object] = {"drop_duplicates": True} if data.drop_duplicates else {}
    dropped |= {"dropped_prompts": digest_json(sorted(test_prompts))} if test_prompts else {}
    return dropped | {
        "encoder_version": ENCODER_VERSION,
        "sources": [_source_inputs(source) for source in data.train_sources],
        "form": encoding.form.value,
        "contract": _contract_inputs(encoding, data.train),
        "prompt": encoding.prompt.model_dump(mode="json"),
        "max_length_tokens": encoding.max_length_tokens,
        "tokenizer": tokenizer_digest(cached_tokenizer(encoding.model_dir, encoding.trust_remote_code)),
    }


def _source_inputs(source: SourceConfig) -> dict[str, object]:
    """Local files are identified by their bytes and formats, not by their paths."""
    files = local_files(source)
    place = {"path": [file_format(file) for file in files]} if files else {}
    return source.reading | place | {"content": content_digest(source)}


def _contract_inputs(encoding: Encoding, sources: Sequence[SourceConfig]) -> Mapping[str, object]:
    """The contract without what only concerns stages (key, weight); for whole responses in both forms."""
    reads_responses = any(source.adapter in ("prompt_completion", "messages") for source in sources)
    forms = Form if reads_responses else [encoding.form]
    contents = {form.value: encoding.contract.of_form(form) for form in forms}
    for content in contents.values():
        for segment in content["segments"]:
            del segment["key"], segment["weight"]
    return contents


def _on_cores(num_workers: int | None) -> Runner:
    return lambda work, tasks: run_on_cores(work, tasks, num_workers)
