"""Rows that repeat another one, and rows whose prompt occurs with another response too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sftkey_dist.data.example import Example
from sftkey_dist.data.hashes import example_hashes


@dataclass(frozen=True)
class RepeatedRow:
    """A row, and the earlier row with the same prompt."""

    id: str
    earlier: str

    def __str__(self) -> str:
        return f"{self.id} and {self.earlier}"


@dataclass(frozen=True)
class Repeats:
    """What a data set contains twice.

    Attributes:
        duplicates: rows with the prompt and the response of an earlier one.
        conflicts: rows with the prompt of an earlier one and a response that no earlier row has.
        conflicting_prompts: number of prompts with several responses.
    """

    duplicates: tuple[RepeatedRow, ...] = ()
    conflicts: tuple[RepeatedRow, ...] = ()
    conflicting_prompts: int = 0

    @classmethod
    def among(cls, ids: Callable[[], Sequence[str]], hashes: np.ndarray) -> "Repeats":
        """Find them among examples, where examples of the same id are one row.

        Args:
            ids: returns the origin of each example.
            hashes: uint64 [N, 3], see `example_hashes`.
        """
        responses, prompts = np.asarray(hashes)[:, 1], np.asarray(hashes)[:, 2]
        firsts = _firsts(responses)
        distinct = np.unique(firsts)  # the first row with each prompt and response, in order
        first_of_prompt = distinct[_firsts(prompts[distinct])]
        differs = first_of_prompt != distinct
        repeated = np.flatnonzero(firsts != np.arange(len(firsts)))
        if not len(repeated) and not differs.any():
            return cls()
        names = ids()
        return cls(
            _rows(names, repeated, firsts[repeated]),
            _rows(names, distinct[differs], first_of_prompt[differs]),
            len(np.unique(first_of_prompt[differs])),
        )


def repeats_of(examples: Sequence[Example]) -> dict[str, Repeats]:
    """What each data set contains twice, by its name: two of them may have the same questions."""
    of_sets: dict[str, list[Example]] = {}
    for example in examples:
        of_sets.setdefault(example.data_set, []).append(example)
    return {name: _repeats_of_set(of_set) for name, of_set in of_sets.items()}


def _repeats_of_set(examples: Sequence[Example]) -> Repeats:
    hashes = np.array([example_hashes(example) for example in examples], np.uint64)
    return Repeats.among(lambda: [example.id for example in examples], hashes)


def _firsts(values: np.ndarray) -> np.ndarray:
    """For each value, int64 [N], the position of the first one that equals it."""
    _, earliest, numbers = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(earliest[numbers])


def _rows(ids: Sequence[str], later: np.ndarray, earlier: np.ndarray) -> tuple[RepeatedRow, ...]:
    pairs = dict.fromkeys((ids[row], ids[first]) for row, first in zip(later.tolist(), earlier.tolist(), strict=True))
    return tuple(RepeatedRow(row, first) for row, first in pairs if row != first)
