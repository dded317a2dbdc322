"""Compares and diagnoses finished runs, from their files."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.contract import ResponseContract
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.diagnosis import Finding, StageCurves, UselessStage, diagnose
from sftkey_dist.files import write_json_atomically
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.run_names import distinct_runs
from sftkey_dist.report.stage_cost import weights_by_name
from sftkey_dist.report.writing import write_comparison
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.run import SETTINGS
from sftkey_dist.run_dir.artifacts.training import (
    INTERPOLATIONS,
    METRICS,
    OBSERVATIONS,
    GuardScores,
    GuardSummary,
    HeldOutMetrics,
    StepMetrics,
    read_summary,
)

_MAX_NAMED = 3


def compare(run_dirs: Sequence[Path], out: Path | None = None) -> tuple[Comparison, list[Path]]:
    """Compare runs, and write the comparison, by default into the folder of the run, or of several runs beside it."""
    runs = distinct_runs(run_dirs)
    comparison = read_comparison(runs)
    files = write_comparison(comparison, _findings(comparison), read_facts(runs), out or _default_file(runs))
    return comparison, files


def _default_file(run_dirs: Sequence[Path]) -> Path:
    """Where a comparison is written. That of several runs does not replace that of one of them."""
    first, *others = run_dirs
    if not others:
        return RunDir(first).comparison
    names = [run.absolute().name for run in run_dirs]
    if len(set(names)) == len(names) <= _MAX_NAMED:
        listed = "-".join(names)
    else:
        digest = digest_json([str(run.absolute()) for run in run_dirs])
        listed = f"{names[0]}-and-{len(others)}-more-{digest[:6]}"
    return first.absolute().parent / f"comparison-{listed}" / RunDir(first).comparison.name


def diagnose_run(run_dir: Path) -> tuple[dict[str, list[Finding]], Path]:
    """Findings about each strategy, and the file with them.

    Raises:
        DataError: the folder has no finished run.
    """
    run = RunDir(run_dir)
    findings = _findings(read_comparison([run_dir]))
    write_json_atomically(
        run.diagnosis, {strategy: [finding.to_json() for finding in found] for strategy, found in findings.items()}
    )
    return findings, run.diagnosis


def _findings(comparison: Comparison) -> dict[str, list[Finding]]:
    return {
        label: diagnose(comparison.records[label], _curves(row))
        for label, row in zip(comparison.labels, comparison.rows, strict=True)
    }


def _curves(row: ComparisonRow) -> StageCurves:
    """Of the last stage that changed the model of a strategy, or of its first stage if none did."""
    contract = SETTINGS.read(RunDir(Path(row.run_dir)).config).contract
    trained = [_trained(contract, directory) for directory in row.stage_dirs()]
    changed = [place for place, stage in enumerate(row.stages) if not stage.is_unchanged]
    last = changed[-1] if changed else 0
    useless = row.stages[last + 1 if changed else 0 :]
    texts = {segment.name for segment in contract.segments}
    metrics, held_out, guard = _up_to_the_model(row.stage_dirs()[last], row.stages[last].guard)
    return StageCurves(
        name=row.stages[last].name,
        continues=last > 0,
        trained=trained[last],
        metrics=metrics if changed else [],
        guard=guard,
        has_trained_whole=any(texts <= trained[place] for place in changed),
        useless=[
            UselessStage(stage.name, stage.steps, stage.guard if stage.guard and stage.guard.kept_the_start else None)
            for stage in useless
        ],
        held_out=held_out if changed else [],
    )


def _trained(contract: ResponseContract, stage: StageDir) -> frozenset[str]:
    """The segments that a stage trains."""
    weights = weights_by_name(contract, read_summary(stage).weights)
    return frozenset(name for name, weight in weights.items() if weight > 0)


def _up_to_the_model(
    stage: StageDir, guard: GuardSummary | None
) -> tuple[list[StepMetrics], list[HeldOutMetrics], list[GuardScores]]:
    """The metrics of a stage, those on held-out examples, and its guard's scores, up to the model that it handed on."""
    if guard is not None and guard.kept_part is not None:
        kept = [of for of in INTERPOLATIONS.read(stage.interpolations) if of.part == guard.kept_part]
        return [], [of.validation for of in kept], [of.guard for of in kept]
    last = None if guard is None else guard.kept_step
    observed = [of for of in OBSERVATIONS.read(stage.validation) if last is None or of.step <= last]
    held_out = [of.validation for of in observed if of.validation]
    scored = [of.guard for of in observed if of.guard and guard is not None]
    return METRICS.read(stage.metrics)[:last], held_out, scored
