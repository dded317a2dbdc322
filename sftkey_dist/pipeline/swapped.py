"""Measures with swapped reasoning what the answers of a run's models follow."""

from collections.abc import Sequence

from sftkey_dist.console import progress_line
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool
from sftkey_dist.evaluation.swapped.measure import SWAPPED_FILE, SwapMeasurement, is_swap_measured
from sftkey_dist.evaluation.swapped.pairing import choose_pairs
from sftkey_dist.pipeline.run_plan import PlannedStrategy, RunPlan


def without_swaps(plan: RunPlan, strategies: Sequence[PlannedStrategy]) -> list[PlannedStrategy]:
    """The strategies whose result is missing, or does not belong to the configuration."""
    return [
        planned
        for planned in strategies
        if not is_swap_measured(planned.evaluation.job, plan.test, planned.evaluation.folder)
    ]


def forget_swaps(strategies: Sequence[PlannedStrategy]) -> None:
    """Remove results, because the configuration asks for none. What models wrote is kept."""
    for planned in strategies:
        (planned.evaluation.folder / SWAPPED_FILE).unlink(missing_ok=True)


def measure_swaps(plan: RunPlan, strategies: Sequence[PlannedStrategy], pool: EvaluationPool) -> None:
    """Continue what is not continued yet, and score it.

    Args:
        plan: plan of the run.
        strategies: strategies whose outputs are generated.
        pool: actors that generate.
    """
    pairs = choose_pairs(plan.test, plan.config.evaluation.swapped_reasoning, strategies[0].evaluation.job)
    for planned in strategies:
        evaluation = planned.evaluation
        measurement = SwapMeasurement(evaluation.job, plan.test, evaluation.folder, pairs)
        with progress_line(f"{planned.name} swapped reasoning", measurement.num_answers) as line:
            measurement.generate(pool, line.update)
        measurement.score()
