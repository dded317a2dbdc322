"""Measures with swapped reasoning what the answers of a run's models follow."""

from collections.abc import Mapping
from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import progress_line
from sftkey_dist.errors import IncompleteEvaluationError, ModelError
from sftkey_dist.evaluation.generation.fan_out import has_generations
from sftkey_dist.evaluation.swapped.measure import SwapMeasurement, is_swap_measured
from sftkey_dist.evaluation.swapped.pairing import choose_pairs
from sftkey_dist.pipeline.generation_pool import generation_pool
from sftkey_dist.pipeline.run_plan import PlannedStrategy, RunPlan
from sftkey_dist.run_dir import EvaluationDir


def without_swaps(plan: RunPlan) -> list[PlannedStrategy]:
    """The strategies that have no result yet that belongs to the configuration; none if it asks for no measurement."""
    return [
        planned
        for planned in plan.strategies
        if plan.config.evaluation.swapped_reasoning and swapped_result(plan, planned) is None
    ]


def swapped_result(plan: RunPlan, planned: PlannedStrategy) -> Path | None:
    """The file of a strategy's result; None if the configuration asks for none, or for another one."""
    job, folder = planned.evaluation.job, planned.evaluation.folder
    is_wanted = plan.config.evaluation.swapped_reasoning and is_swap_measured(job, plan.test, folder)
    return EvaluationDir(folder).swapped_reasoning if is_wanted else None


def measure_swaps(plan: RunPlan) -> list[str]:
    """Measure the strategies that have outputs and no result yet. What was continued earlier is not continued again.

    Returns:
        A line for every strategy whose measurement failed. It does not stop the others.
    """
    ready = [planned for planned in without_swaps(plan) if has_generations(plan.test, planned.evaluation.folder)]
    if not ready:
        return []
    pairs = choose_pairs(plan.test, plan.config.evaluation.swapped_reasoning, ready[0].evaluation.job)
    measurements = {
        planned.name: SwapMeasurement(planned.evaluation.job, plan.test, planned.evaluation.folder, pairs)
        for planned in ready
    }
    unanswered = {name: measurement for name, measurement in measurements.items() if not measurement.is_answered}
    problems = _generate(plan.config, unanswered) if unanswered else {}
    for name, measurement in measurements.items():
        if name not in problems:
            measurement.score()
    return [f"{name}: swapped reasoning: {problem}; the same command tries again" for name, problem in problems.items()]


def _generate(config: RunConfig, measurements: Mapping[str, SwapMeasurement]) -> dict[str, str]:
    """Let the models answer, and return why some did not, by strategy."""
    problems = {}
    with generation_pool(config) as pool:
        for name, measurement in measurements.items():
            with progress_line(f"{name} swapped reasoning", measurement.num_answers) as line:
                try:
                    measurement.generate(pool, line.update)
                except (IncompleteEvaluationError, ModelError) as error:
                    problems[name] = str(error)
    return problems
