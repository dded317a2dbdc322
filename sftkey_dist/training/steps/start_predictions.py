"""Predictions of the model that an anchored stage starts from, in files: the likeliest tokens at every anchored target.

A file holds ``examples`` int64 [n], ``offsets`` int64 [n + 1], and ``ids`` int32 and ``log_probabilities`` float32
[M, k] of the M anchored targets of its n examples, one after another. Files are written whole, and examples are found
by their index, so that it does not matter how many ranks have written them, or in how many attempts.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from sftkey_dist.errors import DataError
from sftkey_dist.files import file_written_whole

Predictions = tuple[np.ndarray, np.ndarray]
"""Ids int32 and log-probabilities float32 in nats, [n, k] each, of the n anchored targets of an example in order."""


class StartPredictions:
    """Predictions by example, read from memory-mapped files.

    Attributes:
        num_files: number of files.
    """

    def __init__(self, folder: Path, num_tokens: int) -> None:
        """
        Args:
            folder: of the files, which may not exist.
            num_tokens: k.

        Raises:
            DataError: a file is damaged.
        """
        self._opened, self._num_tokens = ExitStack(), num_tokens
        self._places: dict[int, tuple[Any, int, int]] = {}
        files = sorted(folder.glob("[!.]*.safetensors"))
        self.num_files = len(files)
        for path in files:
            try:
                self._open(path)
            except (OSError, safetensors.SafetensorError) as error:
                raise DataError(f"{path}: {error}; remove the file, it is then written again") from error

    def of(self, index: int) -> Predictions:
        """The predictions at the anchored targets of an example, which may have none."""
        if index not in self._places:
            return np.zeros((0, self._num_tokens), np.int32), np.zeros((0, self._num_tokens), np.float32)
        file, start, end = self._places[index]
        return file.get_slice("ids")[start:end], file.get_slice("log_probabilities")[start:end]

    def missing(self, examples: np.ndarray) -> np.ndarray:
        """Those of the examples, int64, whose predictions are in no file."""
        return np.array([index for index in examples.tolist() if index not in self._places], dtype=np.int64)

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def _open(self, path: Path) -> None:
        file = self._opened.enter_context(safetensors.safe_open(path, framework="numpy"))
        offsets = file.get_tensor("offsets").tolist()
        for number, index in enumerate(file.get_tensor("examples").tolist()):
            self._places[index] = (file, offsets[number], offsets[number + 1])


def write_part(file: Path, predictions: Mapping[int, Predictions]) -> None:
    """Write the predictions of some examples, by their indices; nothing if there are none."""
    if not predictions:
        return
    ids, log_probabilities = zip(*predictions.values(), strict=True)
    arrays = {
        "examples": np.array(list(predictions), dtype=np.int64),
        "offsets": np.cumsum([0, *map(len, ids)]),
        "ids": np.concatenate(ids),
        "log_probabilities": np.concatenate(log_probabilities),
    }
    with file_written_whole(file) as scratch:
        save_file(arrays, scratch)
