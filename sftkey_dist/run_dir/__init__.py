"""The folder of a run: its paths, its typed files, its journals, and the lock that one command holds."""

from sftkey_dist.run_dir.paths import ModelPlace, RunDir, StageDir

__all__ = ["ModelPlace", "RunDir", "StageDir"]
