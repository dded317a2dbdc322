"""The learning rate as a pure function of the step, so that a resumed stage cannot disagree with it."""

import math

from sftkey_dist.config.strategy import OptimizationConfig


def learning_rate(step: int, num_steps: int, optimization: OptimizationConfig) -> float:
    """Linear warm-up, then the schedule from the peak to ``min_learning_rate_ratio`` of it at the last step.

    The last step never belongs to the warm-up; a stage of one step has the peak.
    """
    peak, last = optimization.learning_rate, num_steps - 1
    if last == 0:
        return peak
    warmup_steps = min(math.ceil(optimization.warmup_ratio * num_steps), last)
    if step < warmup_steps:
        return min(peak, peak * (step + 1) / warmup_steps)
    floor = optimization.min_learning_rate_ratio
    return peak * min(1.0, floor + (1 - floor) * _height(step, warmup_steps, last, optimization))


def _height(step: int, warmup_steps: int, last: int, optimization: OptimizationConfig) -> float:
    """Where the rate is between the minimum, 0, and the peak, 1, in a step after the warm-up."""
    progress = (step - warmup_steps) / (last - warmup_steps) if warmup_steps < last else 1.0
    match optimization.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0
        case "wsd":
            longest = max(1, last - warmup_steps)  # the decay begins after the warm-up, where it is at the peak
            return min(1.0, (last - step) / min(longest, math.ceil(optimization.decay_ratio * (last + 1))))
