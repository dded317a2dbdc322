"""Runs all parts in order."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.run import RunConfig
from sftkey_dist.files import write_text_atomically
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.evaluate import evaluate, evaluation_is_finished
from sftkey_dist.pipeline.finished import verify_stages
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.tracking.evaluations import track_model
from sftkey_dist.pipeline.tracking.runs import open_tracker, track_comparison
from sftkey_dist.pipeline.train import train
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.same_model import same_models
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.lock import locked_run
from sftkey_dist.tracking import Tracker


@dataclass(frozen=True)
class RunResult:
    """What a run ends with.

    Attributes:
        comparison: of its strategies.
        files: the pages and tables of the comparison.
        still_open: what could not be judged or measured yet, a line each; the same call tries again.
    """

    comparison: Comparison
    files: list[Path]
    still_open: list[str]


def run(config: RunConfig, tracker: Tracker | None = None) -> RunResult:
    """Prepare, train, evaluate and compare. Work that an earlier command finished is not repeated.

    Args:
        config: configuration of the run.
        tracker: tracker to use instead of the one that the configuration names.

    Raises:
        UserError: something is wrong. The message says in one line what it is and what to do about it.
    """
    with locked_run(RunDir(config.run_dir)):
        plan = plan_run(config, prepare(config))
        verify_stages(plan)
        tracker = tracker or open_tracker(config)
        finished = plan.is_trained and evaluation_is_finished(plan)
        with nullcontext() if finished else connected(config.cluster, config.most_workers):
            train(plan, tracker)
            still_open = evaluate(plan, tracker)
        comparison, files = compare_and_track(config, tracker)
    return RunResult(comparison, files, still_open)


def compare_and_track(config: RunConfig, tracker: Tracker) -> tuple[Comparison, list[Path]]:
    """Compare the strategies of a run, write their model cards, and log both to MLflow."""
    comparison, files = compare([config.run_dir])
    (facts,) = read_facts([config.run_dir])
    same = same_models(comparison)
    for label, row in zip(comparison.labels, comparison.rows, strict=True):
        model = row.stage_dirs()[-1].model
        write_text_atomically(model / "README.md", model_card(row, facts, same=same.get(label, "")))
        track_model(config, model, row.mlflow_run_id, tracker)
    track_comparison([row.mlflow_run_id for row in comparison.rows], files, tracker)
    return comparison, files
