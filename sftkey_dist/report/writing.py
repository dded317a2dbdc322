"""A comparison as files beside each other."""

from pathlib import Path

from sftkey_dist.files import write_json_atomically, write_text_atomically
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.markdown import to_markdown
from sftkey_dist.report.plots import key_nll_curve, plot_key_nll, plot_score_by_alpha


def write_comparison(comparison: Comparison, json_file: Path) -> list[Path]:
    """Write JSON, Markdown and plots; returns the files."""
    folder, stem = json_file.parent, json_file.stem
    write_json_atomically(json_file, comparison.to_json())
    write_text_atomically(folder / f"{stem}.md", to_markdown(comparison))
    curves = {
        label: key_nll_curve(row.stage_dirs(), row.key_segments)
        for label, row in zip(comparison.labels, comparison.rows, strict=True)
    }
    return [
        json_file,
        folder / f"{stem}.md",
        plot_key_nll(curves, folder / f"{stem}_key_nll.svg"),
        plot_score_by_alpha(comparison.measures, comparison.alpha, folder / f"{stem}_alpha.svg"),
    ]
