"""Draws the figures of README and docs from committed evidence: ``python docs/figures.py``, which `make docs` calls."""

from pathlib import Path

from sftkey_dist.evaluation.statistics import wilson_interval
from sftkey_dist.report.plots import plot_plane
from sftkey_dist.report.study.evidence import COMPARISON

EVIDENCE = Path(__file__).parents[1] / "tests/evidence/study_embedded/no-guard/seed-0/comparison.json"
FIGURE = Path(__file__).with_name("assets") / "accuracy_and_format.svg"


def draw(file: Path) -> Path:
    """The page's figure of accuracy against format, for one run without a guard."""
    rows = COMPARISON.read(EVIDENCE).rows
    measures = {row.strategy: (row.accuracy, row.format) for row in rows}
    intervals = {
        row.strategy: (wilson_interval(row.accuracy * row.n, row.n), wilson_interval(row.format * row.n, row.n))
        for row in rows
    }
    return plot_plane(measures, intervals, file)


if __name__ == "__main__":
    draw(FIGURE)
