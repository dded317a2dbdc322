"""Writes `stage.json`, the summary of a finished stage, from the stage's journals."""

import math
from collections.abc import Sequence

from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract.response_schema import RESPONSE_SCHEMA, response_schema
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.load import PROVENANCE
from sftkey_dist.pipeline.finished import make_durable, note_model
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.run_dir.artifacts.training import (
    EVENTS,
    INTERPOLATIONS,
    METRICS,
    OBSERVATIONS,
    ROUNDING,
    SUMMARY,
    TIMINGS,
    GuardSummary,
    Interpolation,
    Observation,
    StageSummary,
    StepTiming,
)
from sftkey_dist.training.job import StageJob


def write_summary(config: RunConfig, job: StageJob, planned: PlannedStage, wall_seconds: float) -> StageSummary:
    """Write what explains the model and, once everything is on disk, the summary, which marks the stage as finished."""
    write_json_atomically(planned.directory.model / PROVENANCE, planned.inputs)
    schema = response_schema(config.contract, planned.data.form)
    if schema is not None:
        write_json_atomically(planned.directory.model / RESPONSE_SCHEMA, schema)
    metrics, timings = METRICS.read(planned.directory.metrics), TIMINGS.read(planned.directory.timings)
    observations = OBSERVATIONS.read(planned.directory.validation)
    interpolations = INTERPOLATIONS.read(planned.directory.interpolations)
    guard = _guard_summary(job, observations, interpolations)
    summary = StageSummary(
        digest=planned.digest,
        inputs=planned.inputs,
        steps=len(metrics),
        tokens=sum(record.tokens for record in metrics),
        loss_tokens=sum(record.loss_tokens for record in metrics),
        train_seconds=sum(record.seconds for record in timings),
        phase_seconds=_phases(timings),
        collective_share=_collective_share(timings),
        peak_memory_gib=max((record.peak_memory_gib for record in timings), default=0.0),
        wall_seconds=wall_seconds,
        world_size=timings[-1].world_size if timings else config.cluster.num_workers,
        events=[event.message for event in EVENTS.read(planned.directory.events)],
        final_segments=metrics[-1].segments if metrics else {},
        rounding=ROUNDING.read(planned.directory.rounding),
        gain=_gain(guard, observations, interpolations),
        guard=guard,
        model_files=note_model(planned.directory),
        own_responses=planned.own_responses,
    )
    make_durable(planned.directory)
    SUMMARY.write(planned.directory.summary, summary)
    return summary


def _gain(
    guard: GuardSummary | None, observations: Sequence[Observation], interpolations: Sequence[Interpolation]
) -> float | None:
    """Decrease of the loss on held-out examples, from the start of the stage to the model that it hands on."""
    losses = {found.step: found.validation.loss for found in observations if found.validation is not None}
    measured = {step: loss for step, loss in losses.items() if not math.isnan(loss)}
    last = guard.kept_step if guard else max(measured, default=0)
    end = measured.get(last, math.nan)
    if guard and guard.kept_part is not None:
        end = next(found.validation.loss for found in interpolations if found.part == guard.kept_part)
    return measured[0] - end if 0 in measured and not math.isnan(end) else None


def _guard_summary(
    job: StageJob, observations: Sequence[Observation], interpolations: Sequence[Interpolation]
) -> GuardSummary | None:
    """Which model the guard chose, and the scores of this model, at the start and at the end of the stage."""
    if job.guard is None:
        return None
    scored = [(found.step, found.guard.score) for found in observations if found.guard is not None]
    best = max(scored, key=lambda point: point[1])  # the first of equal scores
    kept, kept_part = (best if job.guard.settings.keep == "best" else scored[-1]), None
    between = max(interpolations, key=lambda found: found.guard.score, default=None)
    if between is not None and between.guard.score > kept[1]:
        kept, kept_part = (scored[-1][0], between.guard.score), between.part
    return GuardSummary(
        kept_step=kept[0],
        kept_score=kept[1],
        first_score=scored[0][1],
        last_score=scored[-1][1],
        evaluations=len(scored),
        kept_part=kept_part,
    )


def guard_in_words(summary: StageSummary, guard: GuardSummary) -> str:
    """A sentence about the model that the guard kept, and the cost of its evaluations."""
    share = summary.phase_seconds.get("guard", 0.0) / max(sum(summary.phase_seconds.values()), 1e-9)
    return f"guard {guard.in_words(summary.steps)}; {guard.evaluations} evaluations took {share:.0%} of the stage"


def _collective_share(timings: Sequence[StepTiming]) -> float | None:
    """Share of time in which a collective ran, over the micro-batches that were profiled."""
    watched = sum(record.watched_seconds or 0.0 for record in timings)
    return sum(record.collective_seconds or 0.0 for record in timings) / watched if watched else None


def _phases(timings: Sequence[StepTiming]) -> dict[str, float]:
    """Seconds of the whole stage by phase, longest first."""
    seconds: dict[str, float] = {}
    for record in timings:
        for phase, of_step in record.phase_seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + of_step
    return dict(sorted(seconds.items(), key=lambda item: item[1], reverse=True))
