"""Compares and diagnoses finished runs, from their files."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.contract import ResponseContract
from sftkey_dist.evaluation.diagnosis import Finding, StageCurves, UselessStage, diagnose
from sftkey_dist.files import write_json_atomically
from sftkey_dist.report.comparison import Comparison, ComparisonRow
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.writing import write_comparison
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.run import SETTINGS
from sftkey_dist.run_dir.artifacts.training import (
    INTERPOLATIONS,
    METRICS,
    OBSERVATIONS,
    GuardScores,
    GuardSummary,
    StepMetrics,
    read_summary,
)


def compare(run_dirs: Sequence[Path], out: Path | None = None) -> tuple[Comparison, list[Path]]:
    """Compare runs, and write the comparison, by default into the first run's folder."""
    comparison = read_comparison(run_dirs)
    files = write_comparison(
        comparison, _findings(comparison), read_facts(run_dirs), out or RunDir(run_dirs[0]).comparison
    )
    return comparison, files


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
    metrics, guard = _up_to_the_model(row.stage_dirs()[last], row.stages[last].guard)
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
    )


def _trained(contract: ResponseContract, stage: StageDir) -> frozenset[str]:
    """The segments that a stage trains."""
    weights = zip(contract.segment_names, read_summary(stage).weights, strict=True)
    return frozenset(name for name, weight in weights if weight > 0)


def _up_to_the_model(stage: StageDir, guard: GuardSummary | None) -> tuple[list[StepMetrics], list[GuardScores]]:
    """The metrics of a stage and the scores of its guard, up to the model that it handed on."""
    metrics = METRICS.read(stage.metrics)
    if guard is None:
        return metrics, []
    if guard.kept_part is not None:
        return [], [of.guard for of in INTERPOLATIONS.read(stage.interpolations) if of.part == guard.kept_part]
    scored = [of.guard for of in OBSERVATIONS.read(stage.validation) if of.guard and of.step <= guard.kept_step]
    return metrics[: guard.kept_step], scored
