"""Commands that report finished runs: compare, diagnose and results."""

from pathlib import Path
from typing import Annotated

import typer

from sftkey_dist.cli.arguments import path
from sftkey_dist.cli.output import as_relative, show_comparison, show_study
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError


def compare(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN...]", parser=path, help="Run directories.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Also compare the run directories that this MLflow experiment tracks.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; default: MLFLOW_TRACKING_URI, else runs/mlflow.db.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path, help="JSON file to write, or a folder for it.", show_default="the run, or a folder for several"
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Also write the result as one picture for slides, a .png file."),
    ] = None,
) -> None:
    """Compare the strategies of finished runs: table, comparison.json, Markdown, and one page with figures."""
    if png is not None and (png.suffix != ".png" or png.is_dir()):
        raise ConfigError(f"--png {png}: give the name of a .png file")
    runs = list(run_dirs or [])
    if experiment is not None:
        from sftkey_dist.tracking import run_dirs_of

        named = {run.absolute() for run in runs}
        runs += [run for run in run_dirs_of(experiment, tracking_uri) if run not in named]
    if not runs:
        raise ConfigError("there is nothing to compare: give run directories, or --experiment")
    from sftkey_dist.pipeline.compare import compare as compare_runs

    comparison, files = compare_runs(runs, None if out is None else _json_file(out))
    if png is not None:
        from sftkey_dist.report.slide import draw_slide

        files.append(draw_slide(comparison, png))
    show_comparison(comparison, files)


def _json_file(out: Path) -> Path:
    """The file to write, in a folder that exists or by its name."""
    if out.is_dir():
        return out / "comparison.json"
    if out.suffix != ".json":
        raise ConfigError(f"--out {out}: give the name of a .json file, or a folder that exists")
    return out


def diagnose(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", parser=path, help="Run directory.")],
    strategy: Annotated[str | None, typer.Option(help="Only show this strategy.")] = None,
) -> None:
    """Show which part of the responses fails, in how many outputs, and what to try; writes diagnosis.json."""
    from sftkey_dist.pipeline.compare import diagnose_run
    from sftkey_dist.report.tables import findings_table

    findings, file = diagnose_run(run_dir)
    if strategy is not None and strategy not in findings:
        raise ConfigError(f"--strategy {strategy}: there is no such strategy; the run has {', '.join(findings)}")
    for name, found in findings.items():
        if strategy in (None, name):
            console.print(findings_table(name, found))
    console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)


def results(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY...", parser=path, help="Folders of studies.")],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            help="Markdown file to write; figures are written to the studies' folders.",
            show_default="RESULTS.md in the study's folder, or for several studies in the current one",
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            parser=path, help="Folder to copy the page's input files to; the page is then made from the copies."
        ),
    ] = None,
) -> None:
    """Write one page about studies: strategies over their seeds, contrasts, costs, and agreement with the paper.

    A study is the folder that `sftkey run` creates for a file with a `study`.
    """
    from sftkey_dist.pipeline.study.runs import make_results

    folder = Path() if len(studies) > 1 else keep / studies[0].absolute().name if keep else studies[0]
    files = make_results(studies, out or folder / "RESULTS.md", keep)
    for study in studies:
        show_study(study)
    for file in files:
        console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)
