"""Comparison of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.report.comparison import ComparisonRow, read_rows, write_comparison
from sftkey_dist.run_dir import RunDir


def compare(run_dirs: Sequence[Path], out: Path | None = None) -> tuple[list[ComparisonRow], list[Path]]:
    """Read the rows of runs and write their comparison, by default into the first run's folder."""
    rows = [row for run_dir in run_dirs for row in read_rows(run_dir)]
    return rows, write_comparison(rows, out or RunDir(run_dirs[0]).comparison)
