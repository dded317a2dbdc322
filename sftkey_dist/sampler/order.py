"""A shuffle that is the same on every machine: it sorts by a hash instead of using a random generator.

numpy does not guarantee the same random stream across versions. splitmix64 (Steele, Lea, Flood 2014) is plain integer
arithmetic.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def shuffled_indices(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [N]: a permutation that depends only on the three arguments."""
    with np.errstate(over="ignore"):
        key = splitmix64(np.array([seed], dtype=np.uint64) * _GOLDEN + np.uint64(epoch))
        hashes = splitmix64(np.arange(num_examples, dtype=np.uint64) * _GOLDEN ^ key)
    return np.argsort(hashes, kind="stable")


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Hash each uint64 to a well-mixed uint64."""
    mixed = state + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
