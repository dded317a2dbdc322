"""Diagnosis of the strategies of a finished run, from its files."""

import json
from pathlib import Path

from sftkey_dist.contract import ResponseContract
from sftkey_dist.evaluation.diagnosis import Finding, StageCurves, diagnose
from sftkey_dist.files import write_json_atomically
from sftkey_dist.journal import read_records
from sftkey_dist.report.comparison import ComparisonRow, read_comparison
from sftkey_dist.run_dir import RunDir


def diagnose_run(run_dir: Path) -> tuple[dict[str, list[Finding]], Path]:
    """Findings of each strategy, and the file that holds them.

    Raises:
        DataError: there is no finished run there.
    """
    run = RunDir(run_dir)
    comparison = read_comparison([run_dir])
    contract = ResponseContract.model_validate(json.loads(run.config.read_text(encoding="utf-8"))["contract"])
    findings = {row.strategy: diagnose(row.records(), _last_stage(row, contract)) for row in comparison.rows}
    write_json_atomically(
        run.diagnosis, {strategy: [finding.to_json() for finding in found] for strategy, found in findings.items()}
    )
    return findings, run.diagnosis


def _last_stage(row: ComparisonRow, contract: ResponseContract) -> StageCurves:
    directory = row.stage_dirs()[-1]
    weights = json.loads(directory.summary.read_text(encoding="utf-8"))["inputs"]["weights"]
    trained = {name for name, weight in zip(contract.segment_names, weights, strict=True) if weight > 0}
    return StageCurves(
        name=row.stages[-1].name,
        continues=len(row.stages) > 1,
        trained=frozenset(trained),
        metrics=read_records(directory.metrics),
        guard=[record["guard"] for record in read_records(directory.validation) if "guard" in record],
    )
