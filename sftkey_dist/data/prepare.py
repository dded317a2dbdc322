"""From a configuration to encoded stores on disk, one per form, reused by digest."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.config.schema import DataConfig, PromptConfig, SourceConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.encode import ENCODER_VERSION, EncodedExample, ExampleEncoder
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.prompt import PromptEncoder
from sftkey_dist.data.report import DataReport, summarize
from sftkey_dist.data.sources import read_examples
from sftkey_dist.data.store import EncodedStore, is_store, write_store
from sftkey_dist.errors import DataError
from sftkey_dist.files import digest_json

_BATCH_SIZE = 512
_ROWS_NOT_MALFORMED = frozenset({"too_long"})
"""Refusals that the user's settings cause, not the row; they never stop a preparation."""

Progress = Callable[[Iterable[Sequence[Example]], int], Iterable[Sequence[Example]]]
"""Wraps the batches of a loop whose total is given, to draw a progress bar."""


@dataclass(frozen=True)
class SourceData:
    """The rows of a source: usable examples and refusals."""

    name: str
    examples: tuple[Example, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class PreparedData:
    """An encoded store with its report."""

    path: Path
    report: DataReport


def read_source(name: str, source: SourceConfig, max_bad_row_share: float) -> SourceData:
    """Read a whole source.

    Raises:
        DataError: it cannot be read, is empty, or has more malformed rows than allowed; names the first of them.
    """
    examples: list[Example] = []
    refusals: list[Refusal] = []
    for item in read_examples(source):
        (examples if isinstance(item, Example) else refusals).append(item)  # type: ignore[arg-type]
    check_refusals(name, refusals, len(examples) + len(refusals), max_bad_row_share)
    if not examples:
        raise DataError(f"data.{name}: {source.path or source.adapter} has no usable row")
    return SourceData(name, tuple(examples), tuple(refusals))


def check_refusals(name: str, refusals: Sequence[Refusal], num_rows: int, max_bad_row_share: float) -> None:
    """Stop at the first malformed row when there are more than allowed."""
    malformed = [refusal for refusal in refusals if refusal.reason not in _ROWS_NOT_MALFORMED]
    if len(malformed) > max_bad_row_share * num_rows:
        first = malformed[0]
        raise DataError(
            f"{first.id}: {first.reason}: {first.detail} ({len(malformed)} of {num_rows} rows of data.{name} are "
            f"malformed; mend them, or allow a share to be dropped with data.max_bad_row_share)"
        )


def prepare_store(
    source: SourceData,
    form: Form,
    contract: ResponseContract,
    prompt: PromptConfig,
    data: DataConfig,
    tokenizer: Any,
    progress: Progress = lambda batches, total: batches,
) -> PreparedData:
    """Encode a source in one form, or reuse the store that holds the same encoding of the same data.

    Raises:
        DataError: too many rows cannot be encoded, or none is left.
    """
    inputs = _inputs(source, form, contract, prompt, data, tokenizer)
    digest = digest_json(inputs)
    path = data.store_dir.absolute() / f"{source.name}-{form.value}-{digest[:16]}"
    if not is_store(path):
        prompts = PromptEncoder(tokenizer, prompt)
        encoder = ExampleEncoder(tokenizer, prompts, contract, form, data.max_length_tokens)
        encoded, refusals = _encode_all(encoder, source, progress)
        check_refusals(source.name, refusals, len(source.examples), data.max_bad_row_share)
        if not encoded:
            raise DataError(
                f"data.{source.name}: every row is longer than data.max_length_tokens={data.max_length_tokens}"
            )
        write_store(path, digest, contract.segment_names, encoded, refusals, inputs)
    store = EncodedStore(path)
    report = summarize(
        f"{source.name} ({form.value})",
        digest,
        [*source.refusals, *store.refusals],
        contract.segment_names,
        [segment.name for segment in contract.key_segments],
        store.segment_counts,
    )
    return PreparedData(path, report)


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of everything in a tokenizer that decides token ids."""
    return digest_json(
        [
            tokenizer.backend_tokenizer.to_str(),
            getattr(tokenizer, "chat_template", None),
            {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        ]
    )


def _inputs(
    source: SourceData,
    form: Form,
    contract: ResponseContract,
    prompt: PromptConfig,
    data: DataConfig,
    tokenizer: Any,
) -> dict[str, Any]:
    """Everything an encoding depends on."""
    rows = [(example.id, example.prompt, dict(example.values)) for example in source.examples]
    return {
        "encoder_version": ENCODER_VERSION,
        "rows": digest_json(rows),
        "form": form.value,
        "contract": contract.model_dump(mode="json"),
        "prompt": prompt.model_dump(mode="json"),
        "max_length_tokens": data.max_length_tokens,
        "tokenizer": tokenizer_digest(tokenizer),
    }


def _encode_all(
    encoder: ExampleEncoder, source: SourceData, progress: Progress
) -> tuple[list[EncodedExample], list[Refusal]]:
    encoded: list[EncodedExample] = []
    refusals: list[Refusal] = []
    batches = [source.examples[i : i + _BATCH_SIZE] for i in range(0, len(source.examples), _BATCH_SIZE)]
    for batch in progress(batches, len(batches)):
        for item in encoder.encode(batch):
            (encoded if isinstance(item, EncodedExample) else refusals).append(item)  # type: ignore[arg-type]
    return encoded, refusals
