"""The encoded store: token ids and segment ids of every example, memory-mapped, named by digest.

One folder a (data, contract, form, template, tokenizer): ``examples/`` (Arrow: id, input_ids[T] int32,
segment_ids[T] uint8), ``segment_counts.npy`` (int32 [N, S], tokens of each segment in each example) and
``manifest.json``, written last. Every stage and every strategy of one form reads the same store.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from sftkey_dist.data.encode import EncodedExample
from sftkey_dist.data.example import Refusal
from sftkey_dist.files import folder_written_whole, write_json_atomically

_FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "input_ids": datasets.List(datasets.Value("int32")),
        "segment_ids": datasets.List(datasets.Value("uint8")),
    }
)


class EncodedStore:
    """A finished store, opened for reading; rows are read from a memory-mapped file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        self.digest: str = manifest["digest"]
        self.segment_names: tuple[str, ...] = tuple(manifest["segment_names"])
        self.refusals: tuple[Refusal, ...] = tuple(Refusal(**row) for row in manifest["refusals"])
        self.segment_counts: np.ndarray = np.load(path / "segment_counts.npy", mmap_mode="r")
        self._examples = datasets.load_from_disk(str(path / "examples")).with_format("numpy")

    def __len__(self) -> int:
        return len(self._examples)

    def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """``input_ids[T]`` and ``segment_ids[T]`` of one example, int64."""
        row = self._examples[int(index)]
        return row["input_ids"].astype(np.int64), row["segment_ids"].astype(np.int64)

    def example_ids(self, indices: Sequence[int]) -> list[str]:
        """Where examples come from, for messages."""
        return [str(self._examples[int(index)]["id"]) for index in indices]


def is_store(path: Path) -> bool:
    """Whether a finished store lies there."""
    return (path / "manifest.json").is_file()


def write_store(
    path: Path,
    digest: str,
    segment_names: Sequence[str],
    examples: Sequence[EncodedExample],
    refusals: Sequence[Refusal],
    inputs: dict[str, Any],
) -> None:
    """Write a store whole or not at all; ``inputs`` is kept in it to say what the digest stands for."""
    with folder_written_whole(path) as scratch:
        columns = {
            "id": [example.id for example in examples],
            "input_ids": [example.input_ids for example in examples],
            "segment_ids": [example.segment_ids for example in examples],
        }
        table = datasets.Dataset.from_dict(columns, features=_FEATURES)
        datasets.disable_progress_bars()
        table.save_to_disk(str(scratch / "examples"))
        np.save(scratch / "segment_counts.npy", count_segments(examples, len(segment_names)))
        write_json_atomically(
            scratch / "manifest.json",
            {
                "digest": digest,
                "segment_names": list(segment_names),
                "num_examples": len(examples),
                "inputs": inputs,
                "refusals": [asdict(refusal) for refusal in refusals],
            },
        )


def count_segments(examples: Sequence[EncodedExample], num_segments: int) -> np.ndarray:
    """int32 [N, S]: tokens of each segment in each example."""
    counts = np.zeros((len(examples), num_segments), dtype=np.int32)
    for row, example in enumerate(examples):
        counts[row] = np.bincount(example.segment_ids, minlength=num_segments)
    return counts
