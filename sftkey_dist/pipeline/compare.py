"""Compares and diagnoses finished runs, from their files."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.evaluation.diagnosis import Finding, StageCurves, diagnose
from sftkey_dist.files import write_json_atomically
from sftkey_dist.report.comparison import Comparison, ComparisonRow
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.writing import write_comparison
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.run import SETTINGS
from sftkey_dist.run_dir.artifacts.training import METRICS, OBSERVATIONS, read_summary


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
        label: diagnose(comparison.records[label], _last_stage(row))
        for label, row in zip(comparison.labels, comparison.rows, strict=True)
    }


def _last_stage(row: ComparisonRow) -> StageCurves:
    directory = row.stage_dirs()[-1]
    contract = SETTINGS.read(RunDir(Path(row.run_dir)).config).contract
    weights = read_summary(directory).weights
    trained = {name for name, weight in zip(contract.segment_names, weights, strict=True) if weight > 0}
    return StageCurves(
        name=row.stages[-1].name,
        continues=len(row.stages) > 1,
        trained=frozenset(trained),
        metrics=METRICS.read(directory.metrics),
        guard=[found.guard for found in OBSERVATIONS.read(directory.validation) if found.guard is not None],
    )
