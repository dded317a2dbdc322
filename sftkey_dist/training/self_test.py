"""Tests of a stage's model and network before the first step."""

import numpy as np
from torch import Tensor

from sftkey_dist.errors import TrainingError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.training.bandwidth import SLOW_GB_PER_SECOND, all_gather_gb_per_second
from sftkey_dist.training.collate import pack
from sftkey_dist.training.engine import Engine


def assert_packing_isolates(engine: Engine) -> None:
    """Change the first example of a packed row, and check that the logits of the second do not move.

    Models differ in how they build masks; a leak would silently train on other examples' text.

    Raises:
        TrainingError: the logits moved.
    """
    first, second = np.arange(1, 9) % engine.vocab_size, np.arange(11, 19) % engine.vocab_size
    segments = np.array([0] + [1] * 7)

    def second_logits(first_ids: np.ndarray) -> Tensor:
        row = pack([(first_ids, segments), (second, segments)], (0.0, 1.0), observe_all=False)
        return engine.logits_without_dropout(row.to(engine.device))[len(segments) - 1 :]

    change = (second_logits(first) - second_logits(first[::-1].copy())).abs().max()
    if float(change) > 1e-5:
        raise TrainingError(
            f"examples of a packed row see each other in this model (logits moved by {float(change):.2g}); "
            f"use model.attention=sdpa, and if that leaks too, the model cannot be trained packed"
        )


def warn_of_a_slow_network(engine: Engine, directory: StageDir) -> None:
    """Record an event if accelerators exchange weights more slowly than `sftkey plan` assumes.

    NCCL over TCP does. Called on all ranks together.
    """
    if engine.device.type != "cuda" or engine.world_size == 1:
        return
    rate = all_gather_gb_per_second(engine.device)
    if rate < SLOW_GB_PER_SECOND and engine.rank == 0:
        message = (
            f"ranks exchange weights at {rate:.1f} GB/s, below the {SLOW_GB_PER_SECOND:g} of RDMA or NVLink; "
            f"see which transport NCCL took (cluster.environment={{NCCL_DEBUG: INFO}}), and launch/README.md"
        )
        append_event(directory.events, "slow_network", message)
