"""Builds an encoded store part by part.

The parts lie in a temporary folder beside the store's final place. Finished parts are kept when the build is
interrupted, and the folder is moved into place when all parts are finished.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import filelock
import numpy as np
import pyarrow

from sftkey_dist.data.building.parts import Part, PartSummary
from sftkey_dist.data.duplicates import without_duplicates
from sftkey_dist.data.store import LOSS_WEIGHTS, Manifest, SourceCounts, is_store
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

_TRAINED = ("hashes.npy", LOSS_WEIGHTS)
"""Arrays on which training depends, beside the tokens: hashes decide what is held out."""
_PARTS_VERSION = 2
"""Increase it when the files of unfinished parts change; builds that an earlier version left are then begun again."""


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
        self._plan = digest_json([_PARTS_VERSION, plan])

    @contextmanager
    def owned(self, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait until no other process builds this store. The operating system releases the lock of a process that dies.

        A build that was discarded leaves no files, not even the lock. Deleting it is safe, because filelock opens a new
        file if the lock that it waits for has been unlinked.

        Args:
            waits: Called if another process builds the store, before the wait for it.
        """
        lock = self.path.parent / f".{self.path.name}.lock"
        with folder_kept_if_used(self.path.parent), _held(filelock.FileLock(lock), waits):
            if not is_store(self.path):
                self._keep_parts_of_this_plan()
            try:
                yield
            finally:
                if not self.path.exists() and not self._scratch.exists():
                    lock.unlink(missing_ok=True)

    def part(self, number: int) -> Part:
        """A part by its number in the plan."""
        return Part(self._scratch, f"{number:05d}", len(self._segment_names))

    def finish(
        self, places: Sequence[str], digest: str, inputs: dict[str, object], *, drop_duplicates: bool = False
    ) -> None:
        """Combine the parts and move the store into place.

        Args:
            places: origin of the rows of each part.
            digest: digest of the inputs.
            inputs: everything that the digest covers.
            drop_duplicates: whether rows are left out that repeat an earlier one.
        """
        built = [self.part(number) for number in range(len(places))]
        parts = without_duplicates(built) if drop_duplicates else built
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
        for part in set(built) - set(parts):
            (self.path / part.arrow.relative_to(self._scratch)).unlink(missing_ok=True)

    def _save_arrays(self, parts: Sequence[Mapping[str, np.ndarray]]) -> list[Path]:
        """Join the arrays of all parts; loss weights are left out if all are 1."""
        joined = {name: np.concatenate([part[name] for part in parts]) for name in ("segment_counts", "hashes")}
        weights = [part.get("loss_weights", np.ones(len(part["hashes"]), np.float32)) for part in parts]
        if any((weight != 1).any() for weight in weights):
            joined["loss_weights"] = np.concatenate(weights)
        for name, array in joined.items():
            with file_written_whole(self._scratch / f"{name}.npy") as scratch, scratch.open("wb") as file:
                np.save(file, array)
        return [self._scratch / f"{name}.npy" for name in joined]

    def discard(self) -> None:
        """Delete everything that has been built."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _keep_parts_of_this_plan(self) -> None:
        plan = self._scratch / "plan.json"
        if not plan.is_file() or plan.read_bytes() != to_json(self._plan).encode() + b"\n":
            self.discard()
            write_json_atomically(plan, self._plan)


@contextmanager
def _held(lock: filelock.BaseFileLock, waits: Callable[[], None]) -> Iterator[None]:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        waits()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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


def _summed(rows: Iterable[Mapping[str, Sequence[int]]]) -> dict[str, int]:
    """Numbers of rows over all parts, by name."""
    counts = ({name: len(of_name) for name, of_name in of_part.items()} for of_part in rows)
    return dict(sum(map(Counter, counts), Counter()))


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
