"""Projects the gradients of segments on each other where they conflict: PCGrad (Yu et al. 2020, arXiv:2001.06782).

Every projected gradient is a sum of the gradients themselves, whose factors follow from their inner products. So one
table of inner products, summed over ranks, is all that ranks exchange.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from sftkey_dist.run_dir.artifacts.training import Projection
from sftkey_dist.sampler.order import shuffled_indices
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.steps.segment_gradients import comparison, inner_products


def project(engine: Engine, gradients: Mapping[str, Tensor], seed: int, step: int) -> tuple[Tensor, Projection]:
    """The sum of all gradients after each was projected, and what became of them; called on all ranks together.

    Args:
        engine: whose gradients they are.
        gradients: this rank's slices of each, float32 by the name of its segment; they are overwritten.
        seed: of the stage.
        step: number of the step, which with the seed decides the order of projections.
    """
    products = inner_products(engine, list(gradients.values()))
    factors = projection_factors(products, projection_orders(len(gradients), seed, step))
    first, *others = gradients.values()
    total = first.mul_(float(factors[0]))
    for factor, gradient in zip(factors[1:].tolist(), others, strict=True):
        total.add_(gradient, alpha=factor)
    conflicts = sum(bool(products[pair] < 0) for pair in combinations(range(len(products)), 2))
    return total, Projection(conflicts, comparison(list(gradients), products))


def projection_factors(products: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Algorithm 1 of the paper on n gradients of which only the inner products are known.

    Args:
        products: inner products of the gradients, float64 [n, n].
        orders: for each gradient the order in which it is projected on the others.

    Returns:
        The factor of each gradient in the sum of all projected ones, float64 [n].
    """
    projected = torch.eye(len(products), dtype=torch.float64)
    for own, order in zip(projected, orders, strict=True):
        for other in order:
            product = own @ products[:, other]
            if product < 0:
                own[other] -= product / products[other, other]
    return projected.sum(dim=0)


def projection_orders(number: int, seed: int, step: int) -> list[list[int]]:
    """For each of so many gradients a random order of the others, which depends only on the arguments."""
    shuffles = [shuffled_indices(number, seed, step * number + own).tolist() for own in range(number)]
    return [[other for other in order if other != own] for own, order in enumerate(shuffles)]
