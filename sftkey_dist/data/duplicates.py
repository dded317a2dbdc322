"""Leaves rows out of a store that repeat an earlier one.

Whether a row repeats another is only known when all parts are encoded, because any process may encode a part. The order
of the rows in the store decides which one is kept, so that the store is the same however the rows are cut into parts,
and whoever encodes them.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow
import pyarrow.compute

from sftkey_dist.data.building.parts import Part
from sftkey_dist.data.example import Refusal

DUPLICATE = "duplicate"
"""Reason of the refusal of a row that repeats an earlier one."""
_PROMPT_AND_RESPONSE = 1
"""Column of the hashes."""


def without_duplicates(parts: Sequence[Part]) -> list[Part]:
    """The parts without the rows whose prompt and response are those of an earlier row in these parts.

    Parts without such rows stay as they are. The others are written again, beside the original.
    """
    origins = [part.ids() for part in parts]
    ids = pyarrow.chunked_array([chunk for of_part in origins for chunk in of_part.chunks], pyarrow.string())
    firsts = _first_examples(parts, origins)
    keep = firsts == np.arange(len(firsts))
    bounds = np.cumsum([0, *map(len, origins)]).tolist()
    found = []
    for part, (start, stop) in zip(parts, pairwise(bounds), strict=True):
        dropped = start + np.flatnonzero(~keep[start:stop])
        rows = dict(zip(ids.take(dropped).to_pylist(), ids.take(firsts[dropped]).to_pylist(), strict=True))
        refusals = [Refusal(row, DUPLICATE, f"it repeats {first}") for row, first in rows.items()]
        found.append(part.only(keep[start:stop], refusals) if refusals else part)
    return found


def _first_examples(parts: Sequence[Part], origins: Sequence[pyarrow.ChunkedArray]) -> np.ndarray:
    """For each example of all parts, int64 [N], the one that stays in its place: itself, or an example of the first row
    with the same prompt and response."""
    starts = np.flatnonzero(np.concatenate([_begins_a_row(ids) for ids in origins]))
    hashes = np.concatenate([part.arrays()["hashes"][:, _PROMPT_AND_RESPONSE] for part in parts])
    _, earliest, numbers = np.unique(hashes[starts], return_index=True, return_inverse=True)
    first_rows = earliest[numbers]
    examples = np.arange(len(hashes))
    rows = np.searchsorted(starts, examples, side="right") - 1
    return np.where(first_rows[rows] == rows, examples, starts[first_rows[rows]])


def _begins_a_row(ids: pyarrow.ChunkedArray) -> np.ndarray:
    """Whether each example, bool [N], is the first of its row: a weight above 1 writes a row several times."""
    if not len(ids):
        return np.zeros(0, dtype=bool)
    differs = pyarrow.compute.not_equal(ids[1:], ids[:-1]).to_numpy()
    return np.concatenate([[True], differs])
