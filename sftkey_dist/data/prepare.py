"""Builds encoded stores on disk from a configuration, one per form, and reuses stores with the same digest."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.adapters.sources import read_examples, shards_of
from sftkey_dist.data.adapters.template import fields_of
from sftkey_dist.data.building.parallel import run_on_cores
from sftkey_dist.data.building.parts import PartSummary
from sftkey_dist.data.building.store_builder import StoreBuilder
from sftkey_dist.data.building.task import Encoding, EncodingTask, cached_tokenizer, encode_part, prompt_encoder
from sftkey_dist.data.encoding.encode import ENCODER_VERSION
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.malformed import NONE_HELD_OUT, HeldOut, malformed, require_few
from sftkey_dist.data.rows.files import file_format, local_files
from sftkey_dist.data.rows.shards import content_digest
from sftkey_dist.data.store import EncodedStore, is_store
from sftkey_dist.data.whole import ROWS_AT_A_TIME, of_side
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import DataError, TransientDataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[int], None]
"""Called with the number of rows that are done."""


Runner = Callable[[Callable[[EncodingTask], PartSummary], Sequence[EncodingTask]], Iterator[PartSummary]]
"""Runs tasks somewhere and yields their results in order."""


def first_examples(data: DataConfig, contract: ResponseContract, number: int) -> list[Example]:
    """The first usable examples of the training sources.

    Raises:
        DataError: A source cannot be read, or too many of the rows until there are malformed.
    """
    shards = [(source, shard) for source in data.train_sources for shard in shards_of(source, ROWS_AT_A_TIME)]
    num_rows = sum(shard.num_rows for _, shard in shards)
    examples: list[Example] = []
    refusals: list[Refusal] = []
    for item in chain.from_iterable(read_examples(source, contract, shard) for source, shard in shards):
        if isinstance(item, Example):
            examples.append(item)
        else:
            refusals.append(item)
            if _has_one_example_per_row(data):
                require_few("train", refusals, num_rows, data.max_bad_row_share)
        if len(examples) == number:
            break
    return examples


def prepare_store(
    name: str,
    data: DataConfig,
    encoding: Encoding,
    run: Runner | None = None,
    progress: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None,
    test_prompts: frozenset[int] = frozenset(),
    held_out: HeldOut = NONE_HELD_OUT,
    waits: Callable[[], None] = lambda: None,
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
        held_out: the rows of the sources that are tested; malformed ones count like those that are trained.
        waits: called if another process encodes the same data, before the wait for it.

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
        with builder.owned(waits):
            if not is_store(path):  # another process may have built it while this one waited
                _build(name, data, tasks, builder, run or _on_cores(data.num_workers), progress, held_out)
                places = [task.source.place for task in tasks]
                builder.finish(places, digest, inputs, drop_duplicates=data.drop_duplicates)
    store = EncodedStore(path)
    found = [*malformed(store.refusals), *held_out.malformed]
    require_few(name, found, _num_rows(store) + held_out.num_rows, data.max_bad_row_share)
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
    held_out: HeldOut,
) -> None:
    """Build every missing part, and stop after any part if too many rows have been refused."""
    total = sum(task.shard.num_rows for task in tasks)
    report, done, kept, refused = progress(total), 0, 0, 0
    found: list[Refusal] = []
    try:
        for task, summary in zip(tasks, run(encode_part, tasks), strict=True):
            done, kept = done + task.shard.num_rows, kept + summary.num_examples
            refused += len(summary.refusals)
            found += malformed(summary.refusals)
            if _has_one_example_per_row(data):
                require_few(name, [*found, *held_out.malformed], total, data.max_bad_row_share)
            report(done)
        if kept == 0:
            require_few(name, found, refused, data.max_bad_row_share)
            raise DataError(_nothing_left(name, data, refused))
    except TransientDataError:
        raise
    except DataError:
        builder.discard()  # once the rows are corrected, the parts will be different
        raise


def _has_one_example_per_row(data: DataConfig) -> bool:
    """Otherwise the number of responses, and with it the share of malformed ones, is only known at the end."""
    return all(source.trained_turns == "last" for source in data.train)


def _num_rows(store: EncodedStore) -> int:
    return sum(source.rows for source in store.sources)


def _nothing_left(name: str, data: DataConfig, num_refused: int) -> str:
    places = ", ".join(source.place for source in data.train)
    if not num_refused:
        weights = ", ".join(f"{source.weight:g}" for source in data.train if source.weight < 1)
        drawn = f" that its weight ({weights}) leaves in" if weights else ""
        return f"data.{name}: {places} has no usable row{drawn}{of_side(data.train_sources[0])}"
    dropped = " or in a test set (data.drop_overlap)" if data.drop_overlap else ""
    return f"data.{name}: every row of {places} is longer than data.max_length_tokens={data.max_length_tokens}{dropped}"


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
    """Local files are identified by their bytes and formats, not by their paths.

    Sources whose rows are read otherwise than in earlier stores have a number: labels of any case, and empty templates.
    Where a share of the rows is drawn, the names of the files decide which; see `copies_of`.
    """
    files = local_files(source)
    place = {"path": [file_format(file) for file in files]} if files else {}
    newer = {"reading": 2} if source.labels or fields_of(source.prompt or "") else {}
    drawn_by = {"drawn_by": [os.path.basename(file) for file in files]} if source.weight % 1 else {}
    return source.reading | place | {"content": content_digest(source)} | newer | drawn_by


def _contract_inputs(encoding: Encoding, sources: Sequence[SourceConfig]) -> Mapping[str, object]:
    """The contract without what only concerns stages; for whole responses in both forms.

    Which segments are key decides about rows if their responses are read whole, or if they may lack a key segment.
    """
    reads_responses = any(source.adapter in ("prompt_completion", "messages") for source in sources)
    of_stages = ["weight"]
    if not reads_responses and all(segment.required for segment in encoding.contract.key_segments):
        of_stages.append("key")
    forms = Form if reads_responses else [encoding.form]
    contents = {form.value: encoding.contract.of_form(form) for form in forms}
    for content in contents.values():
        for segment in content["segments"]:
            for name in of_stages:
                del segment[name]
    return contents


def _on_cores(num_workers: int | None) -> Runner:
    return lambda work, tasks: run_on_cores(work, tasks, num_workers)
