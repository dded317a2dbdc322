"""The command line, with one thin function per command.

Commands import their implementation only when they run, so that `--help` and the message about a mistyped key do not
wait ten seconds for torch, Ray, DeepSpeed and MLflow.
"""

import gc
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.text import Text

from sftkey_dist.config import RunConfig, is_study, load_config, load_section, load_study
from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.paths import local_path
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.console import console, errors, visible, write_what_the_terminal_can_show
from sftkey_dist.errors import ConfigError, IncompleteEvaluationError, InterruptedRunError, TrainingError, UserError
from sftkey_dist.interrupts import raise_on_signals
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.lock import locked_run

if TYPE_CHECKING:
    from sftkey_dist.capacity.hardware import Cluster
    from sftkey_dist.pipeline.run_plan import RunPlan
    from sftkey_dist.report.comparison import Comparison

_OBJECTS_BETWEEN_COLLECTIONS = (100_000, 20, 50)
"""Thresholds of the garbage collector. Imports create most objects of a driver, and with the default thresholds
scanning them took a quarter of the import time."""
_USER_ERROR, _TRAINING_STOPPED, _INCOMPLETE, _SIGNALLED = 2, 1, 1, 128

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="SFTKey-Tag on Ray and DeepSpeed: fine-tune on the whole tagged response, then on its answer alone.",
)
track = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Keep MLflow up to date.")
app.add_typer(track, name="track")
job = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Follow and stop jobs on a Ray cluster.")
app.add_typer(job, name="job")


def _path(text: str) -> Path:
    """A file or folder on the command line; `~` is expanded here, because shells do not expand it after `=`."""
    try:
        return Path(local_path(text))
    except ValueError as error:
        raise ConfigError(f"{text!r}: {error}") from None


JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id that `sftkey submit` printed.")]
Configuration = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [KEY=VALUE...]",
        help="YAML files, merged left to right, then overrides such as [bold]optimization.learning_rate=1e-5[/].",
    ),
]


def describe_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield one line per configuration key with its name, default and meaning, from the schema."""
    for name, field in section.model_fields.items():
        inner = _section_type(field.annotation)
        if inner is not None:
            yield from describe_keys(inner, f"{prefix}{name}.")
        else:
            default = (
                ""
                if field.is_required()
                else f" = {json.dumps(field.get_default(call_default_factory=True), default=_jsonable)}"
            )
            yield f"{prefix}{name}{default}: {' '.join((field.description or '').split())}"


def _section_type(annotation: Any) -> type[BaseModel] | None:
    """The section type in `Section`, `Section | None` or a list of sections; None for any other type."""
    options = get_args(annotation) if get_origin(annotation) in (UnionType, tuple) else ()
    sections = [option for option in (annotation, *options) if option not in (type(None), ...)]
    for option in sections if len(sections) <= 2 else ():
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _jsonable(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _keys_help(section: type[BaseModel]) -> str:
    return "[bold]Configuration keys[/]\n\n" + "\n\n".join(escape(line) for line in describe_keys(section))


@app.command(epilog=_keys_help(RunConfig))
def run(configuration: Configuration) -> None:
    """Run everything: prepare the data, train the strategies, evaluate and compare them.

    Run the same command again after an interruption: finished work is kept, and a stage continues from its last
    checkpoint. If a file contains a `study`, all of its runs are executed, and RESULTS.md is written beside them.
    """
    files, overrides = _files_and_overrides(configuration)
    if is_study(files):
        _run_study(files, overrides)
        return
    config = _load(configuration)
    from sftkey_dist.pipeline.run import run as run_all
    from sftkey_dist.tracking import how_to_open, tracking_uri

    comparison, files, still_open = run_all(config)
    _show_comparison(comparison, files)
    if config.tracking.enabled:
        uri = tracking_uri(config.tracking, config.run_dir.absolute())
        console.print(how_to_open(uri), soft_wrap=True, markup=False)
    _require_complete(still_open)


@app.command()
def prepare(configuration: Configuration) -> None:
    """Encode the data and print the data report: rows kept, dropped by reason, lengths per segment."""
    config = _load(configuration)
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.report.tables import data_table

    with locked_run(RunDir(config.run_dir)):
        preparation = prepare_run(config)
    for report in preparation.reports:
        console.print(data_table(report))
    if preparation.run.strategies.is_file():
        console.print(
            "this run has been trained already, so its data report was not changed", soft_wrap=True, markup=False
        )
    else:
        console.print(f"report: {preparation.run.data_report}", soft_wrap=True, markup=False)


@app.command()
def show(
    configuration: Configuration,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Number of examples.")] = 2,
) -> None:
    """Print encoded examples with their segments in colour, and the tokens that each stage trains.

    For trained stages, also print how many stored weights they have changed, and how much of the update is left after
    rounding.
    """
    config = _load(configuration)
    from sftkey_dist.models.load import load_tokenizer
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.rounding import stages_in_words
    from sftkey_dist.pipeline.run_plan import plan_run
    from sftkey_dist.report.segments import colour_segments, mark_trained

    with locked_run(RunDir(config.run_dir)):
        preparation = prepare_run(config)
    tokenizer = load_tokenizer(preparation.model_dir, config.model.trust_remote_code)
    for planned in plan_run(config, preparation).strategies:
        strategy = planned.strategy
        store = preparation.stores[strategy.form]
        for index in range(min(number, len(store))):
            ids, segments = store.example(index)
            console.rule(visible(Text(f"{strategy.name}: {store.example_ids([index])[0]}")))
            console.print(visible(colour_segments(tokenizer, ids, segments, store.segment_names)))
            for stage in strategy.stages:
                console.print(visible(mark_trained(tokenizer, ids, segments, stage.weights, f"stage {stage.name}")))
        for line in stages_in_words(planned.stages):
            console.print(line, soft_wrap=True, markup=False)


@app.command(epilog=_keys_help(SegmentConfig))
def segment(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="File of rows (.jsonl, .json, .csv, .parquet) or hub data set.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=_path, help="JSON Lines file for the segmented rows.")],
    configuration: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG...] [KEY=VALUE...]", help="YAML files and overrides with the keys below."),
    ] = None,
    response_column: Annotated[str, typer.Option(help="Column of the response.")] = "response",
    rules: Annotated[
        str | None,
        typer.Option(
            help="Short for rules=[…]: default (all of these), hash_marks, think, boxed, answer_is, option_letter, "
            "last_line, separated by commas, the most trusted first. Their answers must agree."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a hub data set.")] = "train",
) -> None:
    """Segment whole responses by rules and, if configured, by a language model. Every result is verified.

    Writes OUT, OUT.report.json (coverage by rule, failures by reason, text that was left out, samples) and
    OUT.review.jsonl (unsure rows with the answers that were found). To review a row, fill in or correct its segments,
    set accept to true, and run the same command again.
    """
    files, overrides = _files_and_overrides(configuration or [])
    config = load_section(SegmentConfig, files, [*overrides, *([f"rules=[{rules}]"] if rules else [])])
    from sftkey_dist.console import progress_when_known
    from sftkey_dist.data.segmenting.run import segment_file
    from sftkey_dist.report.tables import segment_table

    rows = SourceConfig(adapter="records", path=source, split=split)
    with progress_when_known("segmenting") as progress:
        report, written = segment_file(rows, response_column, out, config, progress)
    console.print(segment_table(report))
    for file in (written.out, written.report, written.review):
        console.print(f"written: {file}", soft_wrap=True, markup=False)


@app.command()
def plan(
    configuration: Configuration,
    ranks: Annotated[
        str | None,
        typer.Option(help="Numbers of data-parallel ranks, separated by commas; default: cluster.num_workers."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps of each stage to plan.")] = 50,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Number of nodes; if given, estimate memory, time and cost.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Accelerators, and therefore ranks, per node.")] = 8,
    gpu: Annotated[str, typer.Option(help="Type: b200-180g, h200-141g, h100-80g, a100-80g, a100-40g or l40s-48g.")] = (
        "h100-80g"
    ),
    network_gbps: Annotated[float, typer.Option(min=0.1, help="Network bandwidth per node, in Gbit/s.")] = 400.0,
    transport: Annotated[Literal["rdma", "tcp"], typer.Option(help="Transport that NCCL uses between nodes.")] = "rdma",
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Price per accelerator and hour, to estimate the cost.")
    ] = None,
) -> None:
    """Show how evenly each stage loads any number of ranks and, with --nodes, what it needs on a cluster.

    tokens, cost and loss: maximum over the ranks divided by the mean, 1 is perfectly balanced; density: share of the
    token budget that is used; waiting: share of a step in which ranks wait for the slowest one. With --nodes, memory,
    time and cost are estimated from the model's configuration. Prepares the data if necessary, but loads no weights and
    trains nothing.
    """
    config = _load(configuration)
    usual_ranks = nodes * gpus_per_node if nodes else config.cluster.num_workers
    data_ranks = _numbers("--ranks", ranks) if ranks else [usual_ranks]
    from sftkey_dist.capacity.hardware import Cluster, find_accelerator
    from sftkey_dist.console import progress_when_known
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.preview import preview_run
    from sftkey_dist.pipeline.run_plan import plan_run
    from sftkey_dist.report.tables import balance_table

    with locked_run(RunDir(config.run_dir)), progress_when_known("planning") as progress:
        run_plan = plan_run(config, prepare_run(config, needs_weights=False))
        previews, files = preview_run(run_plan, data_ranks, steps, progress)
    for stage in previews:
        looked_at = min(steps, stage.num_steps)
        console.print(balance_table(f"{stage.name}: {looked_at:,} of {stage.num_steps:,} steps", stage.rows))
        for warning in stage.warnings():
            console.print(f"check the plan: {warning}", soft_wrap=True, markup=False)
    if nodes is not None:
        files.append(
            _show_capacity(
                run_plan,
                Cluster(
                    nodes, gpus_per_node, find_accelerator(gpu), network_gbps, price_per_gpu_hour, transport=transport
                ),
                steps,
            )
        )
    for file in files:
        console.print(f"written: {_relative(file)}", soft_wrap=True, markup=False)


@app.command()
def train(configuration: Configuration) -> None:
    """Train every stage that the strategies need. Finished stages are kept."""
    config = _load(configuration)
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.run_plan import plan_run
    from sftkey_dist.pipeline.track import open_tracker
    from sftkey_dist.pipeline.train import train as train_strategies

    with locked_run(RunDir(config.run_dir)):
        run_plan = plan_run(config, prepare_run(config))
        train_strategies(run_plan, open_tracker(config))
    console.print(f"models: {run_plan.run.path / 'stages'}", soft_wrap=True, markup=False)


@app.command()
def evaluate(configuration: Configuration) -> None:
    """Generate and score responses to the test set with the trained strategies; continues an interrupted evaluation."""
    config = _load(configuration)
    from sftkey_dist.pipeline.evaluate import evaluate as evaluate_strategies
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.run import compare_and_track
    from sftkey_dist.pipeline.run_plan import plan_run
    from sftkey_dist.pipeline.track import open_tracker

    with locked_run(RunDir(config.run_dir)):
        run_plan = plan_run(config, prepare_run(config))
        tracker = open_tracker(config)
        still_open = evaluate_strategies(run_plan, tracker)
        comparison, files = compare_and_track(config, tracker)
    _show_comparison(comparison, files)
    _require_complete(still_open)


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN...]", parser=_path, help="Run directories.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Also compare the run directories that this MLflow experiment tracks.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; default: MLFLOW_TRACKING_URI, else runs/mlflow.db.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=_path, help="JSON file to write; default: comparison.json in the first run.")
    ] = None,
) -> None:
    """Compare the strategies of finished runs: table, comparison.json, Markdown, and one page with figures."""
    runs = list(run_dirs or [])
    if experiment is not None:
        from sftkey_dist.tracking import run_dirs_of

        named = {run.absolute() for run in runs}
        runs += [run for run in run_dirs_of(experiment, tracking_uri) if run not in named]
    if not runs:
        raise ConfigError("there is nothing to compare: give run directories, or --experiment")
    from sftkey_dist.pipeline.compare import compare as compare_runs

    comparison, files = compare_runs(runs, out)
    _show_comparison(comparison, files)


@app.command()
def diagnose(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", parser=_path, help="Run directory.")],
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
    console.print(f"written: {_relative(file)}", soft_wrap=True, markup=False)


@app.command()
def results(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY...", parser=_path, help="Folders of studies.")],
    out: Annotated[
        Path, typer.Option(parser=_path, help="Markdown file to write; figures are written to the studies' folders.")
    ] = Path("RESULTS.md"),
    keep: Annotated[
        Path | None,
        typer.Option(
            parser=_path, help="Folder to copy the page's input files to; the page is then made from the copies."
        ),
    ] = None,
) -> None:
    """Write one page about studies: strategies over their seeds, contrasts, costs, and agreement with the paper.

    A study is the folder that `sftkey run` creates for a file with a `study`.
    """
    from sftkey_dist.pipeline.study import make_results

    for file in make_results(studies, out, keep):
        console.print(f"written: {_relative(file)}", soft_wrap=True, markup=False)


Address = Annotated[
    str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, such as http://head:8265.")
]
Unauthenticated = Annotated[bool, typer.Option(help="Connect to a remote cluster without a token.")]


@app.command()
def submit(
    configuration: Configuration,
    address: Address = "http://127.0.0.1:8265",
    verb: Annotated[str, typer.Option(help="Command that the job executes: run, prepare, train or evaluate.")] = "run",
    working_dir: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            help="Folder to send: the files that git tracks or, without a git work tree, Python files and the "
            "files that the configuration names.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Also send these files of the folder, e.g. data/*.jsonl; without a git work tree, send only these.",
        ),
    ] = None,
    with_package: Annotated[bool, typer.Option(help="Also send this version of the package.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow the log until the job ends.")] = True,
    allow_unauthenticated: Unauthenticated = False,
) -> None:
    """Run as a job on a Ray cluster: send the configuration and follow the log.

    Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster. run_dir and data.store_dir must be absolute paths on
    storage that all nodes share. Ctrl-C stops following the log, but not the job.
    """
    if verb not in ("run", "prepare", "train", "evaluate"):
        raise ConfigError(f"--verb {verb}: a job can run, prepare, train or evaluate")
    config = _load(configuration)
    from sftkey_dist.jobs import RayJobs, job_arguments, packed

    with packed(config, working_dir, include or ()) as upload:
        if upload.left_out:
            console.print(upload.left_out_in_words(), soft_wrap=True, markup=False)
        jobs = RayJobs(address, allow_unauthenticated=allow_unauthenticated)
        arguments = job_arguments(verb, allow_unauthenticated=allow_unauthenticated)
        started = jobs.submit(upload, arguments, with_package=with_package)
    console.print(
        f"job {started}: sftkey job logs|status|stop {started} --address {shlex.quote(address)}",
        soft_wrap=True,
        markup=False,
    )
    if wait:
        with _following(started, address):
            jobs.follow(started, _show_as_it_is)


@job.command()
def status(
    identifier: JobId, address: Address = "http://127.0.0.1:8265", allow_unauthenticated: Unauthenticated = False
) -> None:
    """Print the status of a job: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    from sftkey_dist.jobs import RayJobs

    console.print(RayJobs(address, allow_unauthenticated=allow_unauthenticated).status(identifier))


@job.command()
def logs(
    identifier: JobId,
    address: Address = "http://127.0.0.1:8265",
    follow: Annotated[bool, typer.Option(help="Follow the log until the job ends.")] = False,
    allow_unauthenticated: Unauthenticated = False,
) -> None:
    """Print the log of a job."""
    from sftkey_dist.jobs import RayJobs

    jobs = RayJobs(address, allow_unauthenticated=allow_unauthenticated)
    if follow:
        with _following(identifier, address):
            jobs.follow(identifier, _show_as_it_is)
    else:
        _show_as_it_is(jobs.log(identifier))


@job.command()
def stop(
    identifier: JobId, address: Address = "http://127.0.0.1:8265", allow_unauthenticated: Unauthenticated = False
) -> None:
    """Stop a job. If the same configuration is submitted again, it continues from its last checkpoint."""
    from sftkey_dist.jobs import RayJobs

    RayJobs(address, allow_unauthenticated=allow_unauthenticated).stop(identifier)
    console.print(f"job {identifier} was asked to stop", markup=False)


@track.command()
def sync(run_dir: Annotated[Path, typer.Argument(metavar="RUN", parser=_path, help="Run directory.")]) -> None:
    """Upload the metrics of a run that MLflow lacks, each once, after an outage or to a new server."""
    from sftkey_dist.pipeline.sync import sync as sync_run

    with locked_run(RunDir(run_dir)):
        missing = sync_run(run_dir)
    console.print(f"{missing:,} metric points were missing", markup=False)


def main() -> None:
    """Entry point of the `sftkey` script: prints a user's error as one line on stderr and exits with code 2."""
    # The driver computes nothing. Without this, DeepSpeed would search for an accelerator and warn that there is none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    gc.set_threshold(*_OBJECTS_BETWEEN_COLLECTIONS)
    write_what_the_terminal_can_show()
    raise_on_signals()
    with _user_errors_printed():
        app()


def _run_study(files: list[Path], overrides: list[str]) -> None:
    study = load_study(files, overrides)
    from sftkey_dist.pipeline.study import make_results, run_study

    failed = run_study(study, [*map(str, files), *overrides])
    if len(failed) < len(study.runs):
        for file in make_results([study.folder], study.folder / "RESULTS.md", None):
            console.print(f"written: {_relative(file)}", soft_wrap=True, markup=False)
    _require_complete(failed)


def _load(configuration: list[str]) -> RunConfig:
    files, overrides = _files_and_overrides(configuration)
    if not files:
        raise ConfigError("give at least one configuration file, for example configs/quickstart.yaml")
    return load_config(files, overrides)


def _files_and_overrides(configuration: list[str]) -> tuple[list[Path], list[str]]:
    """Separate files from overrides: an override contains `=` and no `/` before it."""
    overrides = [item for item in configuration if "=" in item and "/" not in item.partition("=")[0]]
    return [Path(item) for item in configuration if item not in overrides], overrides


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} takes integers separated by commas, such as 2,8,64; got {text!r}") from None


def _show_comparison(comparison: "Comparison", files: list[Path]) -> None:
    from sftkey_dist.report.tables import comparison_table

    console.print(comparison_table(comparison))
    for file in files:
        console.print(f"written: {_relative(file)}", soft_wrap=True, markup=False)


def _show_capacity(plan: "RunPlan", cluster: "Cluster", steps: int) -> Path:
    from sftkey_dist.capacity import capacity_table
    from sftkey_dist.pipeline.capacity import plan_capacity
    from sftkey_dist.pipeline.fits import problems_of

    size, stages, file = plan_capacity(plan, cluster, steps)
    device = cluster.accelerator
    where = f"{size.parameters / 1e9:.3g} B parameters on {cluster.nodes} x {cluster.gpus_per_node} {device.name}"
    for stage in stages:
        console.print(capacity_table(f"{stage.name}: {where}", stage, device.memory_gib))
    for problem in problems_of(plan.config, size.parameters, stages, device.memory_gib):
        console.print(Text.assemble(("would be refused", "red"), " ", problem), soft_wrap=True)
    return file


@contextmanager
def _following(identifier: str, address: str) -> Iterator[None]:
    """Let Ctrl-C end the block without stopping the job."""
    try:
        yield
    except InterruptedRunError as interrupt:
        errors.print(
            f"the job continues; sftkey job logs --follow {identifier} --address {shlex.quote(address)} shows its log, "
            f"and sftkey job stop stops it",
            soft_wrap=True,
            markup=False,
        )
        raise SystemExit(_SIGNALLED + interrupt.signal_number) from None


def _show_as_it_is(text: str) -> None:
    console.print(text, end="", soft_wrap=True, markup=False, highlight=False)


def _require_complete(still_open: list[str]) -> None:
    if still_open:
        raise IncompleteEvaluationError("\n".join(still_open))


def _relative(file: Path) -> Path:
    return Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file


@contextmanager
def _user_errors_printed() -> Iterator[None]:
    try:
        yield
    except InterruptedRunError as interrupt:
        errors.print("interrupted; run the same command again to continue from the last checkpoint", markup=False)
        sys.exit(_SIGNALLED + interrupt.signal_number)
    except TrainingError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False)
        errors.print("run the same command again to continue from the last checkpoint", markup=False)
        sys.exit(_TRAINING_STOPPED)
    except IncompleteEvaluationError as error:
        errors.print(f"incomplete: {error}", soft_wrap=True, markup=False)
        sys.exit(_INCOMPLETE)
    except UserError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False)
        sys.exit(_USER_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        errors.print(f"error: {error.filename}: {error.strerror}", soft_wrap=True, markup=False)
        sys.exit(_USER_ERROR)


if __name__ == "__main__":  # used by jobs, because the console script may not be on the path
    main()
