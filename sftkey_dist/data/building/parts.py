"""The parts of a store that is being built, each of which is the rows of one shard."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow

from sftkey_dist.data.encoding.encode import EncodedExample
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.store import remedy_of
from sftkey_dist.files import file_written_whole
from sftkey_dist.run_dir.artifacts.kinds import JsonFile

_SCHEMA = pyarrow.schema(
    {
        "id": pyarrow.string(),
        "input_ids": pyarrow.list_(pyarrow.int32()),
        "segment_ids": pyarrow.list_(pyarrow.uint8()),
    }
)


@dataclass(frozen=True)
class PartSummary:
    """What became of the rows of a part.

    Attributes:
        num_rows: rows read; each trained response of a conversation counts as one.
        num_not_drawn: usable rows that a mixture's weight left out.
        num_examples: examples written; a weight above 1 writes a row several times.
        refusals: the rows that were refused.
        special_tokens_in_prompts: by special token, the rows whose own prompt contains its text.
        left_out: by kind of text, the rows of which it belongs to no segment.

    A row is a number here: the position in the part of its first example.
    """

    num_rows: int
    num_not_drawn: int
    num_examples: int
    refusals: tuple[Refusal, ...]
    special_tokens_in_prompts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def of(self, keep: np.ndarray, dropped: Sequence[Refusal]) -> "PartSummary":
        """The summary after rows were dropped; ``keep``, bool [num_examples], tells which examples are left."""
        return replace(
            self,
            num_examples=int(keep.sum()),
            refusals=(*self.refusals, *dropped),
            special_tokens_in_prompts=_kept(self.special_tokens_in_prompts, keep),
            left_out=_kept(self.left_out, keep),
        )


class Part:
    """A part of a store that is being built: an Arrow file, arrays, and a summary, which is written last."""

    FOLDER_WHILE_BUILDING = "building"

    def __init__(self, scratch: Path, name: str, num_segments: int) -> None:
        self._scratch, self._name, self._num_segments = scratch, name, num_segments
        self.arrow = scratch / "parts" / f"part-{name}.arrow"
        self._arrays = scratch / self.FOLDER_WHILE_BUILDING / f"{name}.npz"
        self._summary = scratch / self.FOLDER_WHILE_BUILDING / f"{name}.json"

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

    def ids(self) -> pyarrow.ChunkedArray:
        """Origin of every example, memory-mapped."""
        with pyarrow.ipc.open_stream(pyarrow.memory_map(str(self.arrow))) as batches:
            return batches.read_all()["id"]

    @contextmanager
    def writing(self) -> Iterator["PartWriter"]:
        """Yield a writer of examples. The part only counts as done after `finish`."""
        with self._stream() as stream:
            yield PartWriter(stream, self._num_segments)

    def finish(self, writer: "PartWriter", summary: PartSummary) -> PartSummary:
        """Write the counts and hashes, and then the summary."""
        return self._finish(writer.arrays(), summary)

    def only(self, keep: np.ndarray, dropped: Sequence[Refusal]) -> "Part":
        """Write a part with some of the examples beside this one, unless it exists already.

        Args:
            keep: which examples it has, bool [N].
            dropped: the rows of the others.
        """
        found = Part(self._scratch, f"{self._name}-kept", self._num_segments)
        if not found.is_done:
            with found._stream() as stream, pyarrow.memory_map(str(self.arrow)) as file:
                start = 0
                for batch in pyarrow.ipc.open_stream(file):
                    stream.write_batch(batch.filter(pyarrow.array(keep[start : start + len(batch)])))
                    start += len(batch)
            arrays = {name: array[keep] for name, array in self.arrays().items()}
            found._finish(arrays, self.summary().of(keep, dropped))
        return found

    @contextmanager
    def _stream(self) -> Iterator[pyarrow.ipc.RecordBatchStreamWriter]:
        for folder in (self.arrow.parent, self._summary.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with (
            file_written_whole(self.arrow) as scratch,
            scratch.open("wb") as file,
            pyarrow.ipc.new_stream(file, _SCHEMA) as stream,
        ):
            yield stream

    def _finish(self, arrays: Mapping[str, np.ndarray], summary: PartSummary) -> PartSummary:
        with file_written_whole(self._arrays) as scratch, scratch.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
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


def _kept(rows: Mapping[str, Sequence[int]], keep: np.ndarray) -> dict[str, tuple[int, ...]]:
    return {name: tuple(row for row in of_name if keep[row]) for name, of_name in rows.items()}
