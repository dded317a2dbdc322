"""How many threads a rank computes with."""

import os

import torch


def limit_threads(num_threads: int) -> None:
    """Set the compute threads of this rank; a changed number changes the order of float sums."""
    torch.set_num_threads(num_threads)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
