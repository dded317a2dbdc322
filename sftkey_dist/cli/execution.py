"""Commands that carry out a run, or one part of it: run, prepare, train and evaluate."""

from sftkey_dist.cli.arguments import Configuration, lasting, load_run_config, separate_overrides
from sftkey_dist.cli.exits import require_complete
from sftkey_dist.cli.output import as_relative, show_comparison, show_study
from sftkey_dist.cluster.host import starting_ahead
from sftkey_dist.config import RunConfig, is_study, load_study
from sftkey_dist.console import console
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.lock import locked_run


def run(configuration: Configuration) -> None:
    """Run everything: prepare the data, train the strategies, evaluate and compare them.

    Run the same command again after an interruption: finished work is kept, and a stage continues from its last
    checkpoint. If a file contains a `study`, all of its runs are executed, and RESULTS.md is written beside them.
    """
    if is_study(separate_overrides(configuration)[0]):
        _run_study(configuration)
        return
    config = _load(configuration)
    with starting_ahead(config.cluster, config.most_workers):
        from sftkey_dist.pipeline.run import run as run_all
        from sftkey_dist.tracking import ways_to_open

        result = run_all(config)
    show_comparison(result.comparison, result.files)
    for line in ways_to_open(config.tracking, config.run_dir.absolute()):
        console.print(line, soft_wrap=True, markup=False)
    require_complete(result.still_open)


def prepare(configuration: Configuration) -> None:
    """Encode the data and print the data report: rows kept, dropped by reason, lengths per segment."""
    config = _load(configuration)
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.report.tables import data_notes, data_table

    with locked_run(RunDir(config.run_dir)):
        preparation = prepare_run(config)
    for report in preparation.reports:
        console.print(data_table(report))
        for note in data_notes(report):
            console.print(note, soft_wrap=True, markup=False)
    if preparation.run.strategies.is_file():
        console.print(
            "this run has been trained already, so its data report was not changed", soft_wrap=True, markup=False
        )
    else:
        console.print(f"report: {preparation.run.data_report}", soft_wrap=True, markup=False)


def train(configuration: Configuration) -> None:
    """Train every stage that the strategies need. Finished stages are kept."""
    config = _load(configuration)
    with starting_ahead(config.cluster, config.most_workers):
        from sftkey_dist.pipeline.prepare import prepare as prepare_run
        from sftkey_dist.pipeline.run_plan import plan_run
        from sftkey_dist.pipeline.tracking.runs import open_tracker
        from sftkey_dist.pipeline.train import train as train_strategies

        with locked_run(RunDir(config.run_dir)):
            run_plan = plan_run(config, prepare_run(config))
            train_strategies(run_plan, open_tracker(config))
    console.print(f"models: {run_plan.run.path / 'stages'}", soft_wrap=True, markup=False)


def evaluate(configuration: Configuration) -> None:
    """Generate and score responses to the test set with the trained strategies; continues an interrupted evaluation."""
    config = _load(configuration)
    with starting_ahead(config.cluster, config.most_workers):
        from sftkey_dist.pipeline.evaluate import evaluate as evaluate_strategies
        from sftkey_dist.pipeline.prepare import prepare as prepare_run
        from sftkey_dist.pipeline.run import compare_and_track
        from sftkey_dist.pipeline.run_plan import plan_run
        from sftkey_dist.pipeline.tracking.runs import open_tracker

        with locked_run(RunDir(config.run_dir)):
            run_plan = plan_run(config, prepare_run(config))
            tracker = open_tracker(config)
            still_open = evaluate_strategies(run_plan, tracker)
            comparison, files = compare_and_track(config, tracker)
    show_comparison(comparison, files)
    require_complete(still_open)


def _load(configuration: list[str]) -> RunConfig:
    """Load the configuration, and print that the command has begun, because loading torch and others takes seconds."""
    config = load_run_config(configuration)
    console.print(f"{config.run_dir}: loading libraries", soft_wrap=True, markup=False)
    return config


def _run_study(configuration: list[str]) -> None:
    study = load_study(*separate_overrides(configuration))
    from sftkey_dist.pipeline.study.runs import make_results, run_study

    failed = run_study(study, lasting(configuration, study.folder))
    if len(failed) < len(study.runs):
        files = make_results([study.folder], study.folder / "RESULTS.md", None)
        show_study(study.folder)
        for file in files:
            console.print(f"written: {as_relative(file)}", soft_wrap=True, markup=False)
    require_complete(failed)
