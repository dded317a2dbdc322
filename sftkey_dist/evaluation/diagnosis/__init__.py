"""Which part of a response is failing, with the evidence and the remedy; over records and metrics alone."""

from sftkey_dist.evaluation.diagnosis.findings import Finding, diagnose
from sftkey_dist.evaluation.diagnosis.learning import StageCurves

__all__ = ["Finding", "StageCurves", "diagnose"]
