"""Chooses the training examples that no stage trains on."""

from collections.abc import Sequence

import numpy as np

from sftkey_dist.sampler.order import splitmix64


def held_out_indices(hashes: np.ndarray, num_examples: int, seed: int, others: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Choose examples by a hash of their prompt.

    In this way all forms of a data set hold out the same prompts, even if one form has dropped rows that another has
    kept, and all responses to a prompt are held out together.

    Args:
        hashes: uint64 [N, …], whose first columns are the hashes of the prompt, and of prompt and response
            (``EncodedStore.hashes``).
        num_examples: minimum number of examples to hold out of every form, among prompts that all forms contain; 0
            holds out none. The copies of an example in a mixture count as one.
        seed: seed of the choice.
        others: hashes of the other forms of the data set.

    Returns:
        int64 indices, ascending.
    """
    if not num_examples:
        return np.empty(0, dtype=np.int64)
    prompts = [np.asarray(form[:, 0]) for form in (hashes, *others)]
    candidates = _in_all(prompts)
    distinct = [np.unique(form[:, :2], axis=0)[:, 0] for form in (hashes, *others)]
    last = max(_last_key(_keys(form[np.isin(form, candidates)], seed), num_examples) for form in distinct)
    return np.flatnonzero(np.isin(prompts[0], candidates) & (_keys(prompts[0], seed) <= last))


def without_copies(indices: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Examples without the copies that a mixture makes of them, to which a model responds alike.

    Args:
        indices: the examples, int64 [H].
        hashes: those of all examples; see `held_out_indices`.
    """
    found: np.ndarray = indices[np.sort(np.unique(hashes[indices, 1], return_index=True)[1])]
    return found


def _in_all(prompts: Sequence[np.ndarray]) -> np.ndarray:
    candidates = np.unique(prompts[0])
    for form in prompts[1:]:
        candidates = np.intersect1d(candidates, form)
    return candidates


def _keys(prompts: np.ndarray, seed: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return splitmix64(prompts ^ splitmix64(np.array([seed], dtype=np.uint64)))


def _last_key(keys: np.ndarray, num_examples: int) -> int:
    """The largest of the ``num_examples`` smallest keys; 0 if there are no keys."""
    if not len(keys):
        return 0
    position = min(num_examples, len(keys)) - 1
    return int(np.partition(keys, position)[position])
