"""The folder of a run: its paths, its typed files, its journals, and the lock that one command holds."""

from sftkey_dist.run_dir.evaluation_paths import EvaluationDir
from sftkey_dist.run_dir.paths import RunDir
from sftkey_dist.run_dir.stage_paths import ModelPlace, StageDir

__all__ = ["EvaluationDir", "ModelPlace", "RunDir", "StageDir"]
