"""The learning rate as a pure function of the step, so that a resumed stage cannot disagree with it."""

import math

from sftkey_dist.config.schema import OptimizationConfig


def learning_rate(step: int, num_steps: int, optimization: OptimizationConfig) -> float:
    """Linear warm-up, then a cosine from the peak to ``min_learning_rate_ratio`` of it at the last step."""
    peak = optimization.learning_rate
    warmup_steps = math.ceil(optimization.warmup_ratio * num_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps)
    floor = optimization.min_learning_rate_ratio
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
