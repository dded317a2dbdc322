"""The unit of work of a preparation: encodes one shard of rows as one part of a store, in any process."""

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.adapters.sources import copies_of, read_examples
from sftkey_dist.data.building.parts import Part, PartSummary
from sftkey_dist.data.building.store_builder import StoreBuilder
from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.data.rows.shard import Shard
from sftkey_dist.models.load import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IN_TEST = "in_test"
"""Reason of the refusal of a training row whose prompt is in a test set."""
_BATCH_SIZE = 512


@dataclass(frozen=True)
class Encoding:
    """How examples are encoded, as plain values that can be sent to any process."""

    form: Form
    contract: ResponseContract
    prompt: PromptConfig
    max_length_tokens: int
    model_dir: Path
    trust_remote_code: bool


@dataclass(frozen=True)
class EncodingTask:
    """The task of encoding one part of a store; rows with one of ``test_prompts`` (hashes) are refused."""

    number: int
    source: SourceConfig
    shard: Shard
    encoding: Encoding
    builder: StoreBuilder
    test_prompts: frozenset[int] = frozenset()


def encode_part(task: EncodingTask) -> PartSummary:
    """Read, encode and write one part, unless it exists already."""
    part = task.builder.part(task.number)
    if part.is_done:
        return part.summary()
    with _no_garbage_collection():
        return _encode(task, part)


def _encode(task: EncodingTask, part: Part) -> PartSummary:
    prompts = prompt_encoder(task.encoding)
    encoder, copies = example_encoder(task.encoding, prompts), copies_of(task.source)
    specials, left_out = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    refusals: list[Refusal] = []
    rows = read_examples(task.source, task.encoding.contract, task.shard)
    num_rows = num_not_drawn = 0
    with part.writing() as writer:
        while batch := list(islice(rows, _BATCH_SIZE)):
            refusals += [item for item in batch if isinstance(item, Refusal)]
            usable = [item for item in batch if isinstance(item, Example)]
            drawn = [example for example in usable if copies(example)]
            num_rows, num_not_drawn = num_rows + len(batch), num_not_drawn + len(usable) - len(drawn)
            drawn, in_test = _without(task.test_prompts, drawn)
            refusals += in_test
            encoded = list(zip(drawn, encoder.encode(drawn), strict=True))
            refusals += [item for _, item in encoded if isinstance(item, Refusal)]
            kept = [(example, item) for example, item in encoded if isinstance(item, EncodedExample)]
            position = writer.num_examples
            for example, _ in kept:
                _note(position, prompts.special_tokens_in(example), specials)
                _note(position, example.left_out, left_out)
                position += copies(example)
            written = [(item, example_hashes(example)) for example, item in kept for _ in range(copies(example))]
            writer.add([item for item, _ in written], [hashes for _, hashes in written])
    marks = [{name: tuple(rows) for name, rows in of_name.items()} for of_name in (specials, left_out)]
    return part.finish(writer, PartSummary(num_rows, num_not_drawn, writer.num_examples, tuple(refusals), *marks))


def _note(row: int, names: Iterable[str], rows: dict[str, list[int]]) -> None:
    for name in set(names):
        rows[name].append(row)


def _without(test_prompts: frozenset[int], examples: list[Example]) -> tuple[list[Example], list[Refusal]]:
    """The examples whose prompt is not in a test set, and refusals of the others."""
    if not test_prompts:
        return examples, []
    is_in_test = [example_hashes(example)[0] in test_prompts for example in examples]
    others = [example for example, found in zip(examples, is_in_test, strict=True) if not found]
    detail = "its prompt is in a test set"
    return others, [Refusal(e.id, IN_TEST, detail) for e, found in zip(examples, is_in_test, strict=True) if found]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turn the garbage collector off: batches are many live objects without cycles, and scanning them took 20 % of the
    time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@lru_cache(maxsize=2)
def cached_tokenizer(model_dir: Path, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    """The tokenizer, which is loaded once per process, however many shards the process encodes."""
    tokenizer = load_tokenizer(model_dir, trust_remote_code)
    # Encoding uses neither. If they were kept, the digest would depend on whether something was encoded before.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def prompt_encoder(encoding: Encoding) -> PromptEncoder:
    """The prompt encoder of an encoding."""
    return PromptEncoder(cached_tokenizer(encoding.model_dir, encoding.trust_remote_code), encoding.prompt)


def example_encoder(encoding: Encoding, prompts: PromptEncoder) -> ExampleEncoder:
    """The example encoder of an encoding."""
    tokenizer = cached_tokenizer(encoding.model_dir, encoding.trust_remote_code)
    return ExampleEncoder(tokenizer, prompts, encoding.contract, encoding.form, encoding.max_length_tokens)
