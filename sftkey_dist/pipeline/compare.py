"""Comparison of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.report.comparison import Comparison, read_comparison
from sftkey_dist.report.writing import write_comparison
from sftkey_dist.run_dir import RunDir


def compare(run_dirs: Sequence[Path], out: Path | None = None) -> tuple[Comparison, list[Path]]:
    """Read runs and write their comparison, by default into the first run's folder."""
    comparison = read_comparison(run_dirs)
    return comparison, write_comparison(comparison, out or RunDir(run_dirs[0]).comparison)
