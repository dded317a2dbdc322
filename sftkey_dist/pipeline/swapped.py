"""Measures with swapped reasoning what the answers of a run's models follow."""

from pathlib import Path

from sftkey_dist.console import progress_line
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool
from sftkey_dist.evaluation.swapped.measure import SwapMeasurement, is_swap_measured, swapped_file
from sftkey_dist.evaluation.swapped.pairing import choose_pairs
from sftkey_dist.pipeline.run_plan import PlannedStrategy, RunPlan


def without_swaps(plan: RunPlan) -> list[PlannedStrategy]:
    """The strategies that have no result yet that belongs to the configuration; none if it asks for no measurement."""
    return [
        planned
        for planned in plan.strategies
        if plan.config.evaluation.swapped_reasoning
        and not is_swap_measured(planned.evaluation.job, plan.test, planned.evaluation.folder)
    ]


def swapped_result(plan: RunPlan, planned: PlannedStrategy) -> Path | None:
    """The file of a strategy's result; None if there is none, or if the configuration asks for none."""
    file = swapped_file(planned.evaluation.folder)
    return file if plan.config.evaluation.swapped_reasoning and file.is_file() else None


def measure_swaps(plan: RunPlan, planned: PlannedStrategy, pool: EvaluationPool) -> None:
    """Continue the begun responses of a strategy that are not continued yet, and score all of them.

    Args:
        plan: plan of the run.
        planned: a strategy whose outputs are generated.
        pool: actors that generate.
    """
    evaluation = planned.evaluation
    pairs = choose_pairs(plan.test, plan.config.evaluation.swapped_reasoning, evaluation.job)
    measurement = SwapMeasurement(evaluation.job, plan.test, evaluation.folder, pairs)
    with progress_line(f"{planned.name} swapped reasoning", measurement.num_answers) as line:
        measurement.generate(pool, line.update)
    measurement.score()
