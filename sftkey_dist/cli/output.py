"""What several commands print: a comparison, and the names of files."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey_dist.console import console

if TYPE_CHECKING:
    from sftkey_dist.report.comparison import Comparison


def show_comparison(comparison: "Comparison", files: list[Path]) -> None:
    """Print a comparison, where its models are, and the files that hold it."""
    from sftkey_dist.report.cautions import cautions
    from sftkey_dist.report.commonest import CommonestAnswer
    from sftkey_dist.report.forgetting import forgotten_in_words
    from sftkey_dist.report.headline import headline
    from sftkey_dist.report.tables import comparison_table, forgetting_table, swapped_tables
    from sftkey_dist.report.underpowered import seen_in_words

    console.print(comparison_table(comparison))
    if result := headline(comparison):
        console.print(result, soft_wrap=True, markup=False)
    for caution in cautions(comparison):
        console.print(caution, soft_wrap=True, markup=False)
    if smallest := seen_in_words(comparison):
        console.print(smallest, soft_wrap=True, markup=False)
    if commonest := CommonestAnswer.of(comparison):
        console.print(commonest.in_words(), soft_wrap=True, markup=False)
    if comparison.forgetting:
        console.print(forgetting_table(comparison))
        console.print(forgotten_in_words(comparison.forgetting), soft_wrap=True, markup=False)
    for table in swapped_tables(comparison):
        console.print(table)
    for label, row in zip(comparison.labels, comparison.rows, strict=True):
        model = as_relative(row.stage_dirs()[-1].model)
        console.print(f"model of {label}: {model} (its README.md shows how to load it)", soft_wrap=True, markup=False)
    figures = [file for file in files if file.suffix == ".svg"]
    for file in files:
        if file not in figures:
            console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)
    if figures:
        console.print(f"written: {len(figures)} figures beside them, which the page contains", soft_wrap=True)


def show_study(folder: Path) -> None:
    """Print the strategies of a study over its seeds, and its contrasts."""
    from sftkey_dist.report.study.evidence import Evidence
    from sftkey_dist.report.study.results import contrasts_in_words
    from sftkey_dist.report.tables import study_table

    study = Evidence.read(folder)
    console.print(study_table(study))
    for line in contrasts_in_words(study):
        console.print(line, soft_wrap=True, markup=False)


def as_relative(file: Path) -> Path:
    """The path relative to the current folder, if the file lies below it."""
    return Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file
