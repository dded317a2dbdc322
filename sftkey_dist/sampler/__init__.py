"""Which examples form a step, and how they lie on ranks and micro-batches. Integers and numpy only."""

from sftkey_dist.sampler.cost import CostModel
from sftkey_dist.sampler.plan import StepPlan, StepPlanner, count_steps

__all__ = ["CostModel", "StepPlan", "StepPlanner", "count_steps"]
