"""The loss as sums: training, validation and segment curves divide them by what each of them needs.

L = Σ_i Σ_t w(seg(i,t)) · nll(i,t) / Σ_i Σ_t w(seg(i,t)), over all examples of an optimizer step on all ranks
(arXiv:2512.21017, equations of both stages, written for a weight per segment). The denominator is in the step's
plan, so a micro-batch yields numerators only. Another objective (`objective`) takes the place of nll.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sftkey_dist.run_dir.artifacts.training import SegmentMetrics
from sftkey_dist.training.forward.collate import PackedRow

NLL, CORRECT, COUNT = range(3)
"""Columns of sums; losses of tokens have the first two."""
ENTROPY = 2
"""Column of losses of tokens, where an objective needs it."""
DIVERGENCE = -1
"""Column of losses of tokens, the last one, in rows that are anchored."""
_MIN_REST = 1e-7
"""Least probability of all tokens beside the most likely ones, near the resolution of float32."""
_ENTROPY_TOKENS = 20
"""Most likely tokens over which the entropy is taken, as in EAFT (arXiv:2601.02151)."""


@dataclass(frozen=True)
class LossSums:
    """Sums over one micro-batch.

    Attributes:
        weighted: scalar with gradient, Σ weight · loss in nats; the loss of a token is its nll, or its objective's. The
            anchor's part is in it.
        anchored: scalar without gradient, the anchor's part.
        router: scalar without gradient, the loss that balances routers, before its factor.
        by_segment: float64 [S, 3] without gradient: Σ nll in nats, correctly predicted tokens, tokens.
    """

    weighted: Tensor
    anchored: Tensor
    router: Tensor
    by_segment: Tensor

    def with_router(self, loss: Tensor, factor: float) -> "LossSums":
        """The same with a loss that balances routers, added with a factor."""
        return replace(self, weighted=self.weighted + factor * loss, router=loss.detach())


def segment_metrics(names: tuple[str, ...], totals: Tensor) -> dict[str, SegmentMetrics]:
    """nll in nats per token, token accuracy and token count of every segment that was observed.

    Args:
        names: of the segments.
        totals: sums of `LossSums.by_segment` over micro-batches and ranks, [S, 3].
    """
    return {
        name: SegmentMetrics(
            nll=float(totals[i, NLL] / totals[i, COUNT]),
            token_accuracy=float(totals[i, CORRECT] / totals[i, COUNT]),
            tokens=int(totals[i, COUNT]),
        )
        for i, name in enumerate(names)
        if totals[i, COUNT] > 0
    }


def token_losses(
    logits: Tensor,
    targets: Tensor,
    *,
    with_entropy: bool = False,
    start: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Negative log-likelihood of every target in nats, with gradient, and whether it is the likeliest token (0 or 1).

    Args:
        logits: [K, V].
        targets: int64 [K].
        with_entropy: also return the entropy of the 20 most likely tokens as a share of its maximum, without gradient.
        start: ids and log-probabilities, [K, k] each, of the most likely tokens of another model; also return the KL
            divergence of its prediction from this one in nats, with gradient.

    Returns:
        float32 [K, 2], [K, 3] or [K, 4]: the entropy comes third, and the divergence last.
    """
    # Before logits are copied in float32: the order of two is the same.
    is_most_likely = logits.detach().argmax(dim=-1) == targets
    logits = logits.float()
    if start is None:
        nll, divergence = F.cross_entropy(logits, targets, reduction="none"), None
    else:
        ids, of_start = start
        # One gather for both, whose backward pass makes one gradient of all logits instead of two.
        chosen = torch.log_softmax(logits, dim=-1).gather(1, torch.cat([targets[:, None], ids], dim=1))
        nll = -chosen[:, 0]
        divergence = _divergence(chosen[:, 1:], of_start, is_whole=ids.shape[1] == logits.shape[1])
    columns = [nll, is_most_likely.to(nll.dtype), *([_entropy(logits.detach())] if with_entropy else [])]
    return torch.stack([*columns, *([] if divergence is None else [divergence])], dim=1)


def _divergence(own: Tensor, log_probabilities: Tensor, *, is_whole: bool) -> Tensor:
    """Σ p log (p / q) over the other model's most likely tokens, and over all others as if they were one token.

    Args:
        own: log q of these tokens, [K, k], with gradient.
        log_probabilities: log p, [K, k].
        is_whole: whether there are no other tokens.
    """
    probabilities = log_probabilities.exp()
    terms = torch.where(probabilities > 0, probabilities * (log_probabilities - own), 0.0)
    divergence = terms.sum(dim=1)
    if is_whole:
        return divergence
    rest = (1 - probabilities.sum(dim=1)).clamp(min=0)
    own_rest = (-torch.expm1(own.logsumexp(dim=1))).clamp(min=_MIN_REST)
    return divergence + rest * (rest.clamp(min=_MIN_REST).log() - own_rest.log())


def most_likely(logits: Tensor, number: int) -> Tensor:
    """Ids and log-probabilities of the most likely tokens, float32 [K, 2 · number]; ids below 2^24 are exact.

    Args:
        logits: [K, V].
        number: of tokens; all V if there are fewer.
    """
    log_probabilities = torch.log_softmax(logits.float(), dim=-1)
    found = log_probabilities.topk(min(number, logits.shape[-1]), dim=-1)
    return torch.cat([found.indices.float(), found.values], dim=1)


def _entropy(logits: Tensor) -> Tensor:
    """Entropy of the most likely tokens alone, from 0 to 1."""
    largest = logits.topk(min(_ENTROPY_TOKENS, logits.shape[-1])).values
    log_probabilities = torch.log_softmax(largest, dim=-1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1) / math.log(_ENTROPY_TOKENS)


def loss_sums(losses: Tensor, row: PackedRow, num_segments: int, minimised: Tensor | None = None) -> LossSums:
    """Sums over the kept positions of a row.

    Args:
        losses: `token_losses` of ``row.targets``, [K, 2] to [K, 4].
        row: the micro-batch.
        num_segments: S.
        minimised: loss of every target that is trained on, [K]; by default its negative log-likelihood.
    """
    minimised = losses[:, NLL] if minimised is None else minimised
    with torch.no_grad():
        per_token = F.pad(losses[:, : CORRECT + 1].double(), (0, 1), value=1.0)
        by_segment = torch.zeros(num_segments, 3, dtype=torch.float64, device=losses.device)
        if row.has_targets:
            by_segment.index_add_(0, row.target_segments, per_token)
    weighted = (minimised * row.target_weights).sum()
    anchored = weighted.new_zeros(()) if row.anchor is None else (losses[:, DIVERGENCE] * row.anchor.weights).sum()
    return LossSums(weighted + anchored, anchored.detach(), weighted.new_zeros(()), by_segment)
