"""Builds an encoded store part by part.

The parts lie in a temporary folder beside the store's final place. Finished parts are kept when the build is
interrupted, and the folder is moved into place when all parts are finished.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import filelock
import numpy as np
import pyarrow

from sftkey_dist.data.encode import EncodedExample
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.store import LOSS_WEIGHTS, Manifest, SourceCounts, is_store, remedy_of
from sftkey_dist.digests import digest_file, digest_json
from sftkey_dist.files import (
    file_written_whole,
    flush,
    flush_tree,
    folder_kept_if_used,
    text_written_whole,
    to_json,
    write_json_atomically,
)
from sftkey_dist.run_dir.artifacts.kinds import JsonFile, to_plain

_SCHEMA = pyarrow.schema(
    {
        "id": pyarrow.string(),
        "input_ids": pyarrow.list_(pyarrow.int32()),
        "segment_ids": pyarrow.list_(pyarrow.uint8()),
    }
)
_TRAINED = ("hashes.npy", LOSS_WEIGHTS)
"""Arrays on which training depends, beside the tokens: hashes decide what is held out."""


@dataclass(frozen=True)
class PartSummary:
    """Counts of the rows of a part.

    Attributes:
        num_rows: rows read; each trained response of a conversation counts as one.
        num_not_drawn: usable rows that a mixture's weight left out.
        num_examples: examples written; a weight above 1 writes a row several times.
        refusals: the rows that were refused.
        special_tokens_in_prompts: by special token, rows whose own prompt contains its text.
        left_out: by kind of text, rows of which it belongs to no segment.
    """

    num_rows: int
    num_not_drawn: int
    num_examples: int
    refusals: tuple[Refusal, ...]
    special_tokens_in_prompts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


class StoreBuilder:
    """Builds a store part by part. Any process may write a part, and one process owns the build."""

    def __init__(self, path: Path, segment_names: Sequence[str], plan: object) -> None:
        """
        Args:
            path: folder of the finished store.
            segment_names: names of the contract's segments.
            plan: contents of each part. Existing parts of a different plan are deleted.
        """
        self.path = path
        self._segment_names = tuple(segment_names)
        self._scratch = path.parent / f".{path.name}.partial"
        self._plan = digest_json(plan)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Wait until no other process builds this store. The operating system releases the lock of a process that dies.

        A build that was discarded leaves no files, not even the lock. Deleting it is safe, because filelock opens a new
        file if the lock that it waits for has been unlinked.
        """
        lock = self.path.parent / f".{self.path.name}.lock"
        with folder_kept_if_used(self.path.parent), filelock.FileLock(lock):
            if not is_store(self.path):
                self._keep_parts_of_this_plan()
            try:
                yield
            finally:
                if not self.path.exists() and not self._scratch.exists():
                    lock.unlink(missing_ok=True)

    def part(self, number: int) -> "Part":
        """A part by its number in the plan."""
        return Part(self._scratch, number, len(self._segment_names))

    def finish(self, places: Sequence[str], digest: str, inputs: dict[str, object]) -> None:
        """Combine the parts and move the store into place.

        Args:
            places: origin of the rows of each part.
            digest: digest of the inputs.
            inputs: everything that the digest covers.
        """
        parts = [self.part(number) for number in range(len(places))]
        arrays = self._save_arrays([part.arrays() for part in parts])
        summaries = [part.summary() for part in parts]
        with text_written_whole(self._scratch / "refusals.jsonl") as file:
            for refusal in chain.from_iterable(summary.refusals for summary in summaries):
                file.write(json.dumps(to_plain(refusal), ensure_ascii=False) + "\n")
        filled = [part.arrow for part, summary in zip(parts, summaries, strict=True) if summary.num_examples]
        files = [*filled, *arrays, self._scratch / "refusals.jsonl"]
        manifest = Manifest(
            digest=digest,
            content_digest=_content_digest(
                filled, [file for file in arrays if file.name in _TRAINED], self._segment_names
            ),
            segment_names=self._segment_names,
            sources=_by_source(places, summaries),
            special_tokens_in_prompts=_summed(summary.special_tokens_in_prompts for summary in summaries),
            left_out=_summed(summary.left_out for summary in summaries),
            files={str(file.relative_to(self._scratch)): file.stat().st_size for file in files},
            inputs=inputs,
        )
        JsonFile(Manifest).write(self._scratch / "manifest.json", manifest)
        flush_tree(self._scratch)
        os.replace(self._scratch, self.path)
        flush(self.path.parent)
        shutil.rmtree(self.path / Part.FOLDER_WHILE_BUILDING, ignore_errors=True)

    def _save_arrays(self, parts: Sequence[Mapping[str, np.ndarray]]) -> list[Path]:
        """Join the arrays of all parts; loss weights are left out if all are 1."""
        joined = {name: np.concatenate([part[name] for part in parts]) for name in ("segment_counts", "hashes")}
        weights = [part.get("loss_weights", np.ones(len(part["hashes"]), np.float32)) for part in parts]
        if any((weight != 1).any() for weight in weights):
            joined["loss_weights"] = np.concatenate(weights)
        for name, array in joined.items():
            np.save(self._scratch / f"{name}.npy", array)
        return [self._scratch / f"{name}.npy" for name in joined]

    def discard(self) -> None:
        """Delete everything that has been built."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _keep_parts_of_this_plan(self) -> None:
        plan = self._scratch / "plan.json"
        if not plan.is_file() or plan.read_bytes() != to_json(self._plan).encode() + b"\n":
            self.discard()
            write_json_atomically(plan, self._plan)


class Part:
    """A part of a store that is being built: an Arrow file, arrays, and a summary, which is written last."""

    FOLDER_WHILE_BUILDING = "building"

    def __init__(self, scratch: Path, number: int, num_segments: int) -> None:
        self._num_segments = num_segments
        self.arrow = scratch / "parts" / f"part-{number:05d}.arrow"
        self._arrays = scratch / self.FOLDER_WHILE_BUILDING / f"{number:05d}.npz"
        self._summary = scratch / self.FOLDER_WHILE_BUILDING / f"{number:05d}.json"

    @property
    def is_done(self) -> bool:
        """Whether the part has been written completely."""
        return self._summary.is_file()

    def summary(self) -> PartSummary:
        """What became of its rows."""
        return JsonFile(PartSummary, remedy_of(self._summary.parents[1])).read(self._summary)

    def arrays(self) -> dict[str, np.ndarray]:
        """``segment_counts`` int32 [N, S], ``hashes`` uint64 [N, 3] and ``loss_weights`` float32 [N]."""
        with np.load(self._arrays) as arrays:
            return dict(arrays)

    @contextmanager
    def writing(self) -> Iterator["PartWriter"]:
        """Yield a writer of examples. The part only counts as done after `finish`."""
        for folder in (self.arrow.parent, self._summary.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with (
            file_written_whole(self.arrow) as scratch,
            scratch.open("wb") as file,
            pyarrow.ipc.new_stream(file, _SCHEMA) as stream,
        ):
            yield PartWriter(stream, self._num_segments)

    def finish(self, writer: "PartWriter", summary: PartSummary) -> PartSummary:
        """Write the counts and hashes, and then the summary."""
        with file_written_whole(self._arrays) as scratch, scratch.open("wb") as file:
            np.savez(file, allow_pickle=False, **writer.arrays())
        JsonFile(PartSummary).write(self._summary, summary)
        return summary


class PartWriter:
    """Writes batches of examples to an Arrow stream. It keeps counts, hashes and loss weights (60 bytes per example),
    but no tokens."""

    def __init__(self, stream: pyarrow.ipc.RecordBatchStreamWriter, num_segments: int) -> None:
        self._stream = stream
        self._num_segments = num_segments
        self._counts = [np.zeros((0, num_segments), dtype=np.int32)]
        self._hashes: list[tuple[int, ...]] = []
        self._loss_weights: list[float] = []

    @property
    def num_examples(self) -> int:
        """Examples written so far."""
        return len(self._hashes)

    def add(self, examples: Sequence[EncodedExample], hashes: Sequence[tuple[int, ...]]) -> None:
        """Write a batch of examples with their hashes."""
        self._stream.write_table(_table(examples))
        self._counts.append(count_segments(examples, self._num_segments))
        self._hashes += hashes
        self._loss_weights += [example.loss_weight for example in examples]

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Part.arrays`."""
        found: dict[str, np.ndarray] = {
            "segment_counts": np.concatenate(self._counts),
            "hashes": np.array(self._hashes or np.empty((0, 3)), dtype=np.uint64),
        }
        weights = np.array(self._loss_weights, dtype=np.float32)
        return found | ({"loss_weights": weights} if (weights != 1).any() else {})


def count_segments(examples: Sequence[EncodedExample], num_segments: int) -> np.ndarray:
    """int32 [N, S]: tokens of each segment in each example."""
    counts = np.zeros((len(examples), num_segments), dtype=np.int32)
    for row, example in enumerate(examples):
        for segment, length in example.runs:
            counts[row, segment] += length
    return counts


def _table(examples: Sequence[EncodedExample]) -> pyarrow.Table:
    """Build the table from one flat array per list column and its offsets, which creates no Python object per token."""
    lengths = [len(example.input_ids) for example in examples]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = chain.from_iterable(example.input_ids for example in examples)
    input_ids = np.fromiter(ids, np.int32, int(offsets[-1]))
    runs = np.array([run for example in examples for run in example.runs], dtype=np.int64).reshape(-1, 2)
    segment_ids = np.repeat(runs[:, 0].astype(np.uint8), runs[:, 1])
    columns = [
        pyarrow.array([example.id for example in examples], pyarrow.string()),
        pyarrow.ListArray.from_arrays(offsets, input_ids),
        pyarrow.ListArray.from_arrays(offsets, segment_ids),
    ]
    return pyarrow.Table.from_arrays(columns, schema=_SCHEMA)


def _content_digest(parts: Sequence[Path], arrays: Sequence[Path], segment_names: Sequence[str]) -> str:
    """Digest of what training reads: tokens, segments and arrays in order, regardless of parts and origins."""
    streams = {name: hashlib.sha256() for name in ("lengths", "input_ids", "segment_ids")}
    for part in parts:
        with pyarrow.memory_map(str(part)) as file, pyarrow.ipc.open_stream(file) as batches:
            for batch in batches:
                streams["lengths"].update(batch["input_ids"].value_lengths().to_numpy().tobytes())
                for name in ("input_ids", "segment_ids"):
                    streams[name].update(batch[name].flatten().to_numpy().tobytes())
    return digest_json(
        [*(stream.hexdigest() for stream in streams.values()), *map(digest_file, arrays), *segment_names]
    )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(each) for each in counts), Counter()))


def _by_source(places: Sequence[str], summaries: Sequence[PartSummary]) -> tuple[SourceCounts, ...]:
    """What became of the rows of each source, in order."""
    return tuple(
        SourceCounts(
            place=place,
            rows=sum(s.num_rows for at, s in zip(places, summaries, strict=True) if at == place),
            not_drawn=sum(s.num_not_drawn for at, s in zip(places, summaries, strict=True) if at == place),
            examples=sum(s.num_examples for at, s in zip(places, summaries, strict=True) if at == place),
            refused=sum(len(s.refusals) for at, s in zip(places, summaries, strict=True) if at == place),
        )
        for place in dict.fromkeys(places)
    )
