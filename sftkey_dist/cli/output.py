"""What several commands print: a comparison, and the names of files."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey_dist.console import console

if TYPE_CHECKING:
    from sftkey_dist.report.comparison import Comparison


def show_comparison(comparison: "Comparison", files: list[Path]) -> None:
    """Print a comparison and the files that hold it."""
    from sftkey_dist.report.tables import comparison_table

    console.print(comparison_table(comparison))
    for file in files:
        console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)


def as_relative(file: Path) -> Path:
    """The path relative to the current folder, if the file lies below it."""
    return Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file
