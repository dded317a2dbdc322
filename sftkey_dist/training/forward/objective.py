"""Losses of tokens by the objective of their segment."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sftkey_dist.config.objective import Objective
from sftkey_dist.training.forward.loss import ENTROPY, NLL


def needs_entropy(objectives: Sequence[Objective]) -> bool:
    """Whether `token_losses` must measure entropies."""
    return any(objective.kind == "entropy" for objective in objectives)


def objective_losses(losses: Tensor, segments: Tensor, objectives: Sequence[Objective]) -> Tensor:
    """What is minimised at every kept position, float32 [K] with gradient.

    Args:
        losses: `token_losses`, [K, 2] or with entropies [K, 3].
        segments: segment ids of the targets, int64 [K].
        objectives: of each segment id; empty if all are the negative log-likelihood.
    """
    result = losses[:, NLL]
    for objective in dict.fromkeys(objective for objective in objectives if not objective.is_nll):
        ids = [number for number, other in enumerate(objectives) if other == objective]
        is_meant = torch.isin(segments, torch.tensor(ids, device=segments.device))
        result = torch.where(is_meant, _loss(objective, losses), result)
    return result


def _loss(objective: Objective, losses: Tensor) -> Tensor:
    nll = losses[:, NLL]
    probability = torch.exp(-nll.detach())
    match objective.kind:
        case "nll":
            loss = nll
        case "dft":
            loss = probability * nll
        case "power":
            loss = -torch.expm1(-objective.exponent * nll) / objective.exponent  # exact where p^exponent is near 1
        case "entropy":
            loss = losses[:, ENTROPY].detach() ** objective.exponent * nll
    if objective.min_probability:
        loss = loss * (probability >= objective.min_probability)
    return loss
