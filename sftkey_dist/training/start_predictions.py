"""Predictions of the model that an anchored stage starts from, in files: the likeliest tokens at every anchored target.

``rank_R.safetensors`` holds what a rank computed: ``examples`` int64 [n], ``offsets`` int64 [n + 1], and ``ids`` int32
and ``log_probabilities`` float32 [M, k] of the M anchored targets of its examples, one after another. ``manifest.json``
lists the files and is written last, so that it marks them as complete.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from sftkey_dist.files import file_written_whole
from sftkey_dist.run_dir.artifacts.kinds import JsonFile

Predictions = tuple[np.ndarray, np.ndarray]
"""Ids int64 and log-probabilities float32 in nats, [n, k] each, of the n anchored targets of an example in order."""
_REMEDY = "remove the folder of the stage to train it from its start"


@dataclass(frozen=True)
class _Manifest:
    """manifest.json: names of the files of all ranks."""

    files: tuple[str, ...]


_MANIFEST = JsonFile(_Manifest, _REMEDY)


class StartPredictions:
    """Predictions by example, read from memory-mapped files."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            DataError: the manifest is missing or damaged.
        """
        self._opened = ExitStack()
        self._places: dict[int, tuple[Any, int, int]] = {}
        for name in _MANIFEST.read(_manifest_of(folder)).files:
            file = self._opened.enter_context(safetensors.safe_open(folder / name, framework="numpy"))
            self._num_tokens = file.get_slice("ids").get_shape()[1]
            offsets = file.get_tensor("offsets").tolist()
            for number, index in enumerate(file.get_tensor("examples").tolist()):
                self._places[index] = (file, offsets[number], offsets[number + 1])

    def of(self, index: int) -> Predictions:
        """The predictions at the anchored targets of an example, which may have none."""
        if index not in self._places:
            return np.zeros((0, self._num_tokens), np.int64), np.zeros((0, self._num_tokens), np.float32)
        file, start, end = self._places[index]
        ids, log_probabilities = (file.get_slice(name)[start:end] for name in ("ids", "log_probabilities"))
        return ids.astype(np.int64), log_probabilities

    def close(self) -> None:
        """Close the files."""
        self._opened.close()


def are_complete(folder: Path) -> bool:
    """Whether the predictions of all ranks have been written."""
    return _manifest_of(folder).is_file()


def write_part(folder: Path, rank: int, predictions: Mapping[int, Predictions], num_tokens: int) -> str:
    """Write what a rank computed; returns the name of its file.

    Args:
        folder: of the predictions.
        rank: of this process.
        predictions: by index of the example.
        num_tokens: k, which a rank without examples does not know from them.
    """
    name = f"rank_{rank:05d}.safetensors"
    empty: Predictions = (np.zeros((0, num_tokens), np.int64), np.zeros((0, num_tokens), np.float32))
    ids, log_probabilities = zip(*(empty, *predictions.values()), strict=True)
    arrays = {
        "examples": np.array(list(predictions), dtype=np.int64),
        "offsets": np.cumsum([0, *(len(part) for part in ids[1:])]),
        "ids": np.concatenate(ids).astype(np.int32),
        "log_probabilities": np.concatenate(log_probabilities),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with file_written_whole(folder / name) as scratch:
        save_file(arrays, scratch)
    return name


def commit_parts(folder: Path, files: Sequence[str]) -> None:
    """Write the manifest, which makes the files of all ranks valid."""
    _MANIFEST.write(_manifest_of(folder), _Manifest(tuple(files)))


def _manifest_of(folder: Path) -> Path:
    return folder / "manifest.json"
