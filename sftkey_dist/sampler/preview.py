"""Shows before training how evenly a stage's steps will load the ranks, compared with simple baselines."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice

import numpy as np

from sftkey_dist.sampler.alternatives import Deal, as_drawn, longest_first, rows_in_order
from sftkey_dist.sampler.plan import StepPlan, StepPlanner
from sftkey_dist.sampler.stats import BalanceStats

OURS = "segment-aware"
ALTERNATIVES: dict[str, Deal] = {"as drawn": as_drawn, "longest first": longest_first}
"""The baselines: torch's DistributedSampler, and balancing by total tokens."""


@dataclass(frozen=True)
class BalancePreview:
    """Means over the previewed steps.

    Attributes:
        data_ranks: number of data-parallel ranks.
        side: `OURS`, or the name of an alternative.
        micro_batches: mean number of micro-batches per rank and step.
        examples_per_rank: median per step, because the last step of an epoch is often short.
        balance: see `BalanceStats`.
    """

    data_ranks: int
    side: str
    micro_batches: float
    examples_per_rank: float
    balance: BalanceStats


def preview(planner: StepPlanner, num_steps: int) -> list[BalancePreview]:
    """Compare the plan with the alternatives on its first steps."""
    plans = list(islice(planner.plans(), num_steps))
    layouts = {OURS: [plan.layout for plan in plans]}
    layouts |= {name: list(_baseline_layouts(planner, plans, deal)) for name, deal in ALTERNATIVES.items()}
    examples = float(np.median([len(plan.example_indices) for plan in plans]))
    return [
        BalancePreview(
            data_ranks=planner.data_ranks,
            side=side,
            micro_batches=float(np.mean([layout.shape[1] for layout in laid])),
            examples_per_rank=examples / planner.data_ranks,
            balance=_mean([planner.balance(layout) for layout in laid]),
        )
        for side, laid in layouts.items()
    ]


def _baseline_layouts(planner: StepPlanner, plans: list[StepPlan], deal: Deal) -> Iterator[np.ndarray]:
    for plan in plans:
        members = np.array(plan.example_indices)
        members = members[np.random.default_rng(plan.step).permutation(len(members))]
        lengths = planner.lengths[members]
        positions = rows_in_order(deal(lengths, planner.data_ranks), lengths, planner.micro_batch_tokens)
        yield np.where(positions >= 0, members[positions], positions)


def _mean(stats: list[BalanceStats]) -> BalanceStats:
    return BalanceStats(**{f.name: float(np.mean([getattr(s, f.name) for s in stats])) for f in fields(BalanceStats)})
