"""Writes the files of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sftkey_dist.evaluation.diagnosis import Finding
from sftkey_dist.files import write_json_atomically, write_text_atomically
from sftkey_dist.report.charts import draw_charts
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.markdown import to_markdown
from sftkey_dist.report.page import render_page
from sftkey_dist.report.provenance import RunFacts


def write_comparison(
    comparison: Comparison, findings: Mapping[str, Sequence[Finding]], facts: Sequence[RunFacts], json_file: Path
) -> list[Path]:
    """Write JSON, Markdown, figures and the page.

    Returns:
        The JSON file, the Markdown file and the page, then the figures.
    """
    folder, stem = json_file.parent, json_file.stem
    write_json_atomically(json_file, comparison.to_json(folder))
    markdown, page = folder / f"{stem}.md", folder / f"{stem}.html"
    write_text_atomically(markdown, to_markdown(comparison))
    charts = draw_charts(comparison, folder, stem)
    write_text_atomically(page, render_page(comparison, charts, findings, facts))
    return [json_file, markdown, page, *(chart.file for chart in charts)]
