"""Diagnosis: which part of the responses fails, with evidence and a remedy, from records and metrics alone."""

from sftkey_dist.evaluation.diagnosis.findings import Finding, diagnose
from sftkey_dist.evaluation.diagnosis.learning import StageCurves, UselessStage

__all__ = ["Finding", "StageCurves", "UselessStage", "diagnose"]
