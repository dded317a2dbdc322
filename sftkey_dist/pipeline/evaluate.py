"""Evaluates the final model of every strategy."""

from collections.abc import Sequence

from sftkey_dist.cluster.connection import connected
from sftkey_dist.console import console, progress_line
from sftkey_dist.errors import DataError, IncompleteEvaluationError
from sftkey_dist.evaluation.capabilities.fan_out import measure_all
from sftkey_dist.evaluation.generation.fan_out import has_generations
from sftkey_dist.evaluation.judge.jury import make_jury
from sftkey_dist.evaluation.judging import is_scored, judge_and_score
from sftkey_dist.pipeline.capabilities import CapabilityJobs, plan_capabilities, record_capabilities
from sftkey_dist.pipeline.changes import changes_in_words
from sftkey_dist.pipeline.finished import verify_stages
from sftkey_dist.pipeline.generation_pool import generation_pool, room_for_actors
from sftkey_dist.pipeline.prepare import write_configuration
from sftkey_dist.pipeline.records import forget_all_but, record_evaluation, record_training
from sftkey_dist.pipeline.responding_model import begin_responses
from sftkey_dist.pipeline.run_plan import PlannedStrategy, RunPlan
from sftkey_dist.pipeline.swapped import measure_swaps, swapped_result, without_swaps
from sftkey_dist.pipeline.tracking.evaluations import track_capabilities, track_evaluation, track_swapped
from sftkey_dist.pipeline.tracking.runs import strategy_run
from sftkey_dist.tracking import Tracker


def evaluation_is_finished(plan: RunPlan) -> bool:
    """Whether every strategy has complete scores for this configuration, and all else that it asks for is measured."""
    return not _unscored(plan) and not without_swaps(plan) and not plan_capabilities(plan).open


def evaluate(plan: RunPlan, tracker: Tracker) -> list[str]:
    """Evaluate the final model of every strategy on the test sets. Existing generations and scores are not repeated.

    Returns:
        What could not be judged yet, or not be measured with swapped reasoning, one line per strategy, and which
        capabilities could not be measured. Scores report the former too.

    Raises:
        DataError: a strategy is not trained yet, its model was changed, or no answer can be judged.
        IncompleteEvaluationError: a strategy lacks responses. The others are evaluated.
    """
    for planned in plan.strategies:
        if not planned.stages[-1].is_finished:
            changes = [line for stage in planned.stages for line in changes_in_words(plan.run, stage, plan.stages)]
            raise DataError(
                f"strategy {planned.name} is not trained yet with this configuration; run `sftkey train` with it"
                + "".join(f" ({line})" for line in changes)
            )
    verify_stages(plan)
    for planned in plan.strategies:
        begin_responses(planned.evaluation.folder, planned.stages[-1].directory, planned.name)
    todo = _unscored(plan)
    write_configuration(plan.config, plan.preparation)
    if not todo:
        is_finished = evaluation_is_finished(plan)
        console.print(f"evaluation: {'finished' if is_finished else 'answers were scored'} earlier, not repeated")
    ungenerated = [planned for planned in todo if not _is_generated(plan, planned)]
    still_open = _generate(plan, ungenerated) if ungenerated else []
    generated = [planned for planned in todo if _is_generated(plan, planned)]
    still_open += _judge(plan, generated) if generated else []
    still_open += measure_swaps(plan)
    capabilities = plan_capabilities(plan)
    still_open += _measure_capabilities(plan, capabilities)
    record_capabilities(plan, capabilities)
    for planned in plan.strategies:
        _record(plan, planned, tracker)
    forget_all_but(plan.run, [planned.name for planned in plan.strategies])
    if len(generated) < len(todo):
        raise IncompleteEvaluationError("\n".join(still_open))
    return still_open


def _unscored(plan: RunPlan) -> list[PlannedStrategy]:
    """The strategies to evaluate, with those whose generations were lost after they were scored."""
    return [planned for planned in plan.strategies if not (_is_scored(plan, planned) and _is_generated(plan, planned))]


def _is_scored(plan: RunPlan, planned: PlannedStrategy) -> bool:
    return is_scored(planned.evaluation.job, plan.test, planned.evaluation.folder)


def _is_generated(plan: RunPlan, planned: PlannedStrategy) -> bool:
    return has_generations(plan.test, planned.evaluation.folder)


def _generate(plan: RunPlan, strategies: Sequence[PlannedStrategy]) -> list[str]:
    """Generate for each strategy, and return those with missing responses. They do not stop the others."""
    still_open = []
    names = ", ".join(planned.name for planned in strategies)
    console.print(f"evaluation: starting with {len(plan.test):,} prompts for {names}", soft_wrap=True, markup=False)
    with generation_pool(plan.config) as pool:
        for planned in strategies:
            with progress_line(f"{planned.name} evaluation", len(plan.test)) as line:
                try:
                    pool.generate(planned.evaluation.job, plan.test, planned.evaluation.folder, line.update)
                except IncompleteEvaluationError as error:
                    still_open.append(f"{planned.name}: {error}")
    return still_open


def _judge(plan: RunPlan, strategies: Sequence[PlannedStrategy]) -> list[str]:
    config, settings = plan.config, plan.config.evaluation.judge
    if settings is None:
        for planned in strategies:
            judge_and_score(planned.evaluation.job, plan.test, planned.evaluation.folder, None, lambda done: None)
        return []
    still_open = []
    num_answers = len(plan.test) * config.evaluation.sampling.num_samples * len(config.contract.key_segments)
    with (
        connected(config.cluster, config.most_workers),
        make_jury(settings, plan.run.path, config.cluster, room_for_actors(config)) as jury,
    ):
        for planned in strategies:
            with progress_line(f"{planned.name} judging", num_answers) as line:
                try:
                    judge_and_score(planned.evaluation.job, plan.test, planned.evaluation.folder, jury, line.update)
                except IncompleteEvaluationError as error:
                    still_open.append(str(error))
    return still_open


def _measure_capabilities(plan: RunPlan, capabilities: CapabilityJobs) -> list[str]:
    """Measure what is not measured yet, and return a line for every task that failed."""
    config, jobs = plan.config, capabilities.open
    if not jobs:
        return []
    with connected(config.cluster, config.most_workers), progress_line("capabilities", len(jobs)) as line:
        return measure_all(jobs, config.cluster, config.evaluation, room_for_actors(config), line.update)


def _record(plan: RunPlan, planned: PlannedStrategy, tracker: Tracker) -> None:
    """Record which stages were evaluated, and the evaluation's folder, and track the evaluation."""
    folder, form, last = planned.evaluation.folder, planned.strategy.form.value, planned.stages[-1]
    store = str(last.inputs["store"])
    with strategy_run(plan.config, plan.run, planned.name, form, last.digest, store, tracker) as parent:
        record_training(plan, planned, tracker.mlflow_run_id(parent))
        track_capabilities(plan.config, plan.run, planned.name, parent, tracker)
        if not _is_generated(plan, planned):
            return
        record_evaluation(plan.run, planned.name, folder, swapped_result(plan, planned))
        track_swapped(plan.config, plan.run, planned.name, parent, tracker)
        if _is_scored(plan, planned):
            track_evaluation(plan.config, plan.run, planned.name, folder, parent, tracker)
