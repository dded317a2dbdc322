"""What a finished stage was and cost: `stage.json`, made from the stage's journals."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sftkey_dist.config.run import RunConfig
from sftkey_dist.files import read_json, write_json_atomically
from sftkey_dist.models.load import PROVENANCE
from sftkey_dist.pipeline.finished import make_durable, note_model
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.training.job import StageJob


def write_summary(config: RunConfig, job: StageJob, planned: PlannedStage, wall_seconds: float) -> dict[str, Any]:
    """Say in the model folder what it comes from, then, once all of it is on disk, mark the stage as finished."""
    write_json_atomically(planned.directory.model / PROVENANCE, planned.inputs)
    metrics, timings = read_records(planned.directory.metrics), read_records(planned.directory.timings)
    validation = read_records(planned.directory.validation)
    guard = _guard_summary(job, validation)
    summary = {
        "digest": planned.digest,
        "inputs": planned.inputs,
        "steps": len(metrics),
        "tokens": sum(record["tokens"] for record in metrics),
        "loss_tokens": sum(record["loss_tokens"] for record in metrics),
        "train_seconds": sum(record["seconds"] for record in timings),
        "phase_seconds": _phases(timings),
        "collective_share": _collective_share(timings),
        "peak_memory_gib": max((record["peak_memory_gib"] for record in timings), default=0.0),
        "wall_seconds": wall_seconds,
        "world_size": timings[-1]["world_size"] if timings else config.cluster.num_workers,
        "events": [record["message"] for record in read_records(planned.directory.events)],
        "final_segments": metrics[-1]["segments"] if metrics else {},
        "rounding": read_json(planned.directory.rounding),
        "gain": _gain(guard, validation),
        "guard": guard,
        "model_files": {name: note.model_dump() for name, note in note_model(planned.directory).items()},
    }
    make_durable(planned.directory)
    write_json_atomically(planned.directory.summary, summary)
    return summary


def _gain(guard: Mapping[str, Any] | None, records: Sequence[Mapping[str, Any]]) -> float | None:
    """By how much the stage's loss on held-out examples fell, from its start to the model that it hands on."""
    losses = {record["step"]: record["validation"]["loss"] for record in records if "validation" in record}
    measured = {step: loss for step, loss in losses.items() if loss is not None}
    last = guard["kept_step"] if guard else max(measured, default=0)
    return float(measured[0] - measured[last]) if 0 in measured and last in measured else None


def _guard_summary(job: StageJob, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Which model the guard handed on, and the scores at the start, of it, and at the end of the stage."""
    if job.guard is None:
        return None
    scores = [(record["step"], record["guard"]["score"]) for record in records if "guard" in record]
    scored = [(step, math.nan if score is None else score) for step, score in scores]
    best = max(scored, key=lambda point: point[1])  # of equals the first
    kept = best if job.guard.settings.keep == "best" else scored[-1]
    return {
        "kept_step": kept[0],
        "kept_score": kept[1],
        "first_score": scored[0][1],
        "last_score": scored[-1][1],
        "evaluations": len(scored),
    }


def guard_in_words(summary: Mapping[str, Any]) -> str:
    """Which model the guard kept, and what its evaluations cost."""
    guard, phases = summary["guard"], summary["phase_seconds"]
    share = phases.get("guard", 0.0) / max(sum(phases.values()), 1e-9)
    return (
        f"guard kept the model after step {guard['kept_step']} of {summary['steps']}: held-out score "
        f"{guard['first_score']:.3f} at the start, {guard['kept_score']:.3f} kept, {guard['last_score']:.3f} at the "
        f"end; {guard['evaluations']} evaluations took {share:.0%} of the stage"
    )


def _collective_share(timings: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the micro-batches in which it was measured: the share of their time in which a collective ran."""
    measured = [record for record in timings if "collective_seconds" in record]
    if not measured:
        return None
    return float(sum(record["collective_seconds"] for record in measured) / sum(r["watched_seconds"] for r in measured))


def _phases(timings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of the whole stage by phase, longest first."""
    seconds: Counter[str] = Counter()
    for record in timings:
        seconds.update(record["phase_seconds"])
    return dict(seconds.most_common())
