"""Tests of a stage's model and network before the first step."""

import numpy as np
import torch
from torch import Tensor

from sftkey_dist.errors import TrainingError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.training.diagnostics.bandwidth import SLOW_GB_PER_SECOND, all_gather_gb_per_second
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.forward.collate import pack

_MAX_MOVED = {torch.float32: 1e-5, torch.bfloat16: 0.01}
"""Of the logits of an example when another one in its row changes, as a share of their norm. Nothing but rounding moves
them: a mixture of experts multiplies other numbers of tokens."""

_MAX_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Of logits that are computed in another order, as a share of their norm, of which few tokens that are routed to other
experts change little; a part that misses those before it is off by more in any model that has been trained."""


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
        return engine.logits_without_dropout(row.to(engine.device))[len(segments) - 1 :]  # whole, on every rank

    before, after = second_logits(first), second_logits(first[::-1].copy())
    change = float((before.float() - after.float()).norm() / before.float().norm())
    if change > _MAX_MOVED[before.dtype]:
        raise TrainingError(
            f"examples of a packed row see each other in this model (logits moved by {change:.2g} of their norm); "
            f"use model.attention=sdpa, and if that leaks too, the model cannot be trained packed"
        )


def assert_parts_equal_rows(engine: Engine) -> None:
    """Compute an example in parts on several ranks, and whole on each, and check that its logits are the same.

    Attention is all that passes anything from one part to the next. In a model that has anything else between tokens,
    such as a convolution or a recurrent state, tokens would miss what stands in the parts before theirs.

    Raises:
        TrainingError: they differ.
    """
    if engine.sequence_group.size == 1:
        return
    tokens = np.arange(1, 8 * engine.sequence_group.size + 1) % engine.vocab_size
    whole = pack([(tokens, np.ones_like(tokens))], (0.0, 1.0), observe_all=False)
    part = engine.place(whole)
    part_logits = engine.logits_without_dropout(part)
    in_parts = engine.gather_parts(part, part_logits).float()
    expected = engine.logits_without_dropout(whole.to(engine.device)).float().cpu()
    difference = float((in_parts - expected).norm() / expected.norm())
    if difference > _MAX_DIFFERENCE[part_logits.dtype]:
        raise TrainingError(
            f"this model does not compute the same when several ranks share a row (logits differ by {difference:.2g} "
            f"of their norm): something other than its attention connects tokens; set "
            f"training.sequence_parallel_ranks=1"
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
            f"see which transport NCCL took (cluster.environment.NCCL_DEBUG=INFO), and launch/README.md"
        )
        append_event(directory.events, "slow_network", message)
