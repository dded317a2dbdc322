"""Which training examples no stage trains on."""

import numpy as np

from sftkey_dist.sampler.order import splitmix64


def held_out_indices(hashes: np.ndarray, num_examples: int, seed: int) -> np.ndarray:
    """Choose examples by a hash of their prompt.

    Both forms of a data set hold out the same prompts so, and a prompt's other responses go with it.

    Args:
        hashes: uint64 [N, …], the first of the prompt (``EncodedStore.hashes``).
        num_examples: at least so many are held out; 0 for none.
        seed: of the choice.

    Returns:
        int64 indices, ascending.
    """
    if not num_examples:
        return np.empty(0, dtype=np.int64)
    with np.errstate(over="ignore"):
        key = splitmix64(np.array([seed], dtype=np.uint64))
        keys = splitmix64(np.asarray(hashes[:, 0]) ^ key)
    position = min(num_examples, len(keys)) - 1
    last = np.partition(keys, position)[position]
    return np.flatnonzero(keys <= last)
