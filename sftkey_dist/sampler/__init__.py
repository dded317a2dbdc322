"""Plans which examples form a step, and how they are placed on ranks and micro-batches. Uses integers and numpy
only."""

from sftkey_dist.sampler.batches import RankBatchSampler
from sftkey_dist.sampler.cost import AttentionWindow, CostModel, mean_attended_pairs
from sftkey_dist.sampler.plan import StepPlan, StepPlanner, count_steps, count_trained, weighted_targets
from sftkey_dist.sampler.stats import BalanceStats

__all__ = [
    "AttentionWindow",
    "BalanceStats",
    "CostModel",
    "RankBatchSampler",
    "StepPlan",
    "StepPlanner",
    "count_steps",
    "count_trained",
    "mean_attended_pairs",
    "weighted_targets",
]
