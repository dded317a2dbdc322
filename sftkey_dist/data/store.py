"""The encoded store: memory-mapped token ids and segment ids of every example, named by a digest of its inputs.

There is one folder per (data, contract, form, template, tokenizer). It contains ``parts/`` (Arrow: id, input_ids[T]
int32, segment_ids[T] uint8), ``segment_counts.npy`` (int32 [N, S], tokens of each segment in each example),
``hashes.npy`` (uint64 [N, 3]: hashes of the prompt without its system message, of the whole example, and of the
prompt), ``loss_weights.npy`` (float32 [N]) if not all weights are 1, ``refusals.jsonl`` and ``manifest.json``, which is
written last. Its content digest covers the tokens and the weights only, so settings that do not change them do not
change the stages that are trained on them. Every stage and every strategy of one form reads the same store.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np

from sftkey_dist.data.example import Refusal
from sftkey_dist.data.repeats import Repeats
from sftkey_dist.errors import DataError
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile

LOSS_WEIGHTS = "loss_weights.npy"


@dataclass(frozen=True)
class SourceCounts:
    """What became of the rows of a source.

    Attributes:
        place: file or hub id.
        rows: read; each trained response of a conversation counts as one.
        not_drawn: usable rows that the mixture's weight left out.
        examples: written; a weight above 1 writes a row several times.
        refused: rows that cannot be used.
    """

    place: str
    rows: int
    not_drawn: int
    examples: int
    refused: int


@dataclass(frozen=True)
class Manifest:
    """manifest.json.

    Attributes:
        digest: of everything that the store was made from.
        content_digest: of its tokens and loss weights alone.
        segment_names: the contract's.
        sources: what became of their rows.
        special_tokens_in_prompts: by special token, rows whose own prompt contains its text.
        left_out: by kind of text, rows of which it belongs to no segment.
        files: sizes in bytes, by path in the store.
        inputs: what ``digest`` stands for.
    """

    digest: str
    content_digest: str
    segment_names: tuple[str, ...]
    sources: tuple[SourceCounts, ...]
    special_tokens_in_prompts: dict[str, int]
    left_out: dict[str, int]
    files: dict[str, int]
    inputs: dict[str, object]


class EncodedStore:
    """A finished store, opened for reading from memory-mapped files."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DataError: A file of the store is missing or has the wrong size.
        """
        self.path = path
        manifest = JsonFile(Manifest, remedy_of(path)).read(path / "manifest.json")
        self.digest = manifest.content_digest
        self.segment_names = manifest.segment_names
        self.sources = manifest.sources
        self.special_tokens_in_prompts = manifest.special_tokens_in_prompts
        self.left_out = manifest.left_out
        for file, size in manifest.files.items():
            if not (path / file).is_file() or (path / file).stat().st_size != size:
                raise DataError(f"{path / file}: missing or damaged; {remedy_of(path)}")
        self.segment_counts: np.ndarray = np.load(path / "segment_counts.npy", mmap_mode="r")
        self.hashes: np.ndarray = np.load(path / "hashes.npy", mmap_mode="r")
        self.loss_weights: np.ndarray | None = (
            np.load(path / LOSS_WEIGHTS, mmap_mode="r") if LOSS_WEIGHTS in manifest.files else None
        )
        tables = [datasets.Dataset.from_file(str(path / file)) for file in manifest.files if file.endswith(".arrow")]
        self._examples = datasets.concatenate_datasets(tables).with_format("numpy")

    def __len__(self) -> int:
        return len(self._examples)

    @cached_property
    def refusals(self) -> list[Refusal]:
        """Every row that was refused."""
        return Journal(Refusal, remedy_of(self.path)).read(self.path / "refusals.jsonl")

    @cached_property
    def repeats(self) -> Repeats:
        """The rows that it contains twice, and the prompts with several responses."""
        return Repeats.among(lambda: self.ids, self.hashes)

    @property
    def ids(self) -> list[str]:
        """Origins of all examples, in order."""
        return [str(name) for name in self._examples["id"]]

    def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """``input_ids[T]`` and ``segment_ids[T]`` of one example, int64."""
        row = self._examples[int(index)]
        return row["input_ids"].astype(np.int64), row["segment_ids"].astype(np.int64)

    def loss_weights_of(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Factors of the examples' loss weights, float32 [len(indices)]; None if those of all examples are 1."""
        return None if self.loss_weights is None else self.loss_weights[np.asarray(indices, dtype=np.int64)]

    def example_ids(self, indices: Sequence[int]) -> list[str]:
        """Origins of examples, for messages."""
        return [str(self._examples[int(index)]["id"]) for index in indices]


def hashes_of(stores: Iterable[Path]) -> list[np.ndarray]:
    """`EncodedStore.hashes` of each store, without opening its examples."""
    return [np.load(path / "hashes.npy", mmap_mode="r") for path in stores]


def is_store(path: Path) -> bool:
    """Whether the folder contains a finished store."""
    return (path / "manifest.json").is_file()


def remedy_of(store: Path) -> str:
    """What to do about a damaged store, for messages."""
    return f"delete {store} and prepare again"
