"""The loss as sums: training, validation and segment curves divide them by what each of them needs.

L = Σ_i Σ_t w(seg(i,t)) · nll(i,t) / Σ_i Σ_t w(seg(i,t)), over all examples of an optimizer step on all ranks
(arXiv:2512.21017, equations of both stages, written for a weight per segment). The denominator is in the step's
plan, so a micro-batch yields numerators only.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sftkey_dist.contract import PROMPT_ID
from sftkey_dist.run_dir.artifacts.training import SegmentMetrics
from sftkey_dist.training.collate import PackedRow

NLL, CORRECT, COUNT = range(3)
"""Columns; losses of tokens have the first two."""


@dataclass(frozen=True)
class LossSums:
    """Sums over one micro-batch.

    Attributes:
        weighted_nll: scalar with gradient, Σ weight · nll in nats.
        by_segment: float64 [S, 3] without gradient: Σ nll in nats, correctly predicted tokens, tokens.
    """

    weighted_nll: Tensor
    by_segment: Tensor


def segment_metrics(names: tuple[str, ...], totals: Tensor) -> dict[str, SegmentMetrics]:
    """nll in nats per token, token accuracy and token count of every segment that was observed.

    Args:
        names: of the segments, the prompt first.
        totals: sums of `LossSums.by_segment` over micro-batches and ranks, [S, 3].
    """
    return {
        name: SegmentMetrics(
            nll=float(totals[i, NLL] / totals[i, COUNT]),
            token_accuracy=float(totals[i, CORRECT] / totals[i, COUNT]),
            tokens=int(totals[i, COUNT]),
        )
        for i, name in enumerate(names)
        if i != PROMPT_ID and totals[i, COUNT] > 0
    }


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of every target in nats, with gradient, and whether it is the likeliest token (0 or 1).

    Returns float32 [K, 2].

    Args:
        logits: [K, V].
        targets: int64 [K].
    """
    nll = F.cross_entropy(logits.float(), targets, reduction="none")
    is_most_likely = (logits.detach().argmax(dim=-1) == targets).to(nll.dtype)
    return torch.stack([nll, is_most_likely], dim=1)


def loss_sums(losses: Tensor, row: PackedRow, num_segments: int) -> LossSums:
    """Sums over the kept positions of a row.

    Args:
        losses: `token_losses` of ``row.targets``, [K, 2].
        row: the micro-batch.
        num_segments: S.
    """
    nll = losses[:, NLL]
    with torch.no_grad():
        # A dummy's target lies in the prompt segment, which no metric reads.
        per_token = F.pad(losses.double(), (0, 1), value=1.0)
        by_segment = torch.zeros(num_segments, 3, dtype=torch.float64, device=losses.device)
        by_segment.index_add_(0, row.target_segments, per_token)
    return LossSums((nll * row.target_weights).sum(), by_segment)
