"""The loss as sums: training, validation and segment curves divide them by what each of them needs.

L = Σ_i Σ_t w(seg(i,t)) · nll(i,t) / Σ_i Σ_t w(seg(i,t)), over all examples of an optimizer step on all ranks
(arXiv:2512.21017, equations of both stages, written for a weight per segment). The denominator is in the step's
plan, so a micro-batch yields numerators only.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sftkey_dist.training.collate import PROMPT_ID, PackedRow

NLL, CORRECT, COUNT = range(3)


@dataclass(frozen=True)
class LossSums:
    """Sums over one micro-batch.

    Attributes:
        weighted_nll: scalar with gradient, Σ weight · nll in nats.
        by_segment: float64 [S, 3] without gradient: Σ nll in nats, correctly predicted tokens, tokens.
    """

    weighted_nll: Tensor
    by_segment: Tensor


def segment_metrics(names: tuple[str, ...], totals: Tensor) -> dict[str, dict[str, float]]:
    """nll in nats per token, token accuracy and token count of every segment that was observed.

    Args:
        names: of the segments, the prompt first.
        totals: sums of `LossSums.by_segment` over micro-batches and ranks, [S, 3].
    """
    return {
        name: {
            "nll": float(totals[i, NLL] / totals[i, COUNT]),
            "token_accuracy": float(totals[i, CORRECT] / totals[i, COUNT]),
            "tokens": int(totals[i, COUNT]),
        }
        for i, name in enumerate(names)
        if i != PROMPT_ID and totals[i, COUNT] > 0
    }


def loss_sums(logits: Tensor, row: PackedRow, num_segments: int) -> LossSums:
    """Sums over the kept positions of a row.

    Args:
        logits: [K, V] at ``row.kept_positions``.
        row: the micro-batch.
        num_segments: S.
    """
    nll = F.cross_entropy(logits.float(), row.targets, reduction="none")
    with torch.no_grad():
        # A dummy's target lies in the prompt segment, which no metric reads.
        correct = (logits.argmax(dim=-1) == row.targets).double()
        per_token = torch.stack([nll.double(), correct, torch.ones_like(correct)], dim=1)
        by_segment = torch.zeros(num_segments, 3, dtype=torch.float64, device=logits.device)
        by_segment.index_add_(0, row.target_segments, per_token)
    return LossSums((nll * row.target_weights).sum(), by_segment)
