"""The command line: one thin command a verb.

Commands import what they run when they run: `--help` and a mistyped key must not wait ten seconds for torch, Ray,
DeepSpeed and MLflow.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from pydantic import BaseModel
from rich.markup import escape

from sftkey_dist.config import RunConfig, load_config
from sftkey_dist.console import console, errors
from sftkey_dist.errors import ConfigError, InterruptedRunError, TrainingError, UserError

if TYPE_CHECKING:
    from sftkey_dist.report.comparison import ComparisonRow

_USER_ERROR, _TRAINING_STOPPED, _INTERRUPTED = 2, 1, 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="SFTKey-Tag on Ray and DeepSpeed: fine-tune on the whole tagged response, then on its answer alone.",
)

Configuration = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [KEY=VALUE...]",
        help="YAML files, merged left to right, then overrides such as [bold]optimization.learning_rate=1e-5[/].",
    ),
]


def describe_keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """One line for every configuration key: name, default, meaning; read from the schema."""
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
    """The section behind `Section`, `Section | None` or a list of them."""
    options = get_args(annotation) if get_origin(annotation) in (UnionType, tuple) else ()
    for option in (annotation, *options):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _jsonable(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


_KEYS_HELP = "[bold]Configuration keys[/]\n\n" + "\n\n".join(escape(line) for line in describe_keys())


@app.command(epilog=_KEYS_HELP)
def run(configuration: Configuration) -> None:
    """Do the whole thing: prepare, train the strategies, evaluate, compare.

    Run it again after an interruption: what is finished is kept, a stage goes on from its last checkpoint.
    """
    config = _load(configuration)
    from sftkey_dist.pipeline.run import run as run_all
    from sftkey_dist.tracking import how_to_open, tracking_uri

    rows, files = run_all(config)
    _show_comparison(rows, files)
    if config.tracking.enabled:
        uri = tracking_uri(config.tracking, config.run_dir.absolute())
        console.print(how_to_open(uri), soft_wrap=True, markup=False)


@app.command()
def prepare(configuration: Configuration) -> None:
    """Encode the data and print the data report: rows kept, dropped by reason, lengths per segment."""
    config = _load(configuration)
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.report.tables import data_table

    preparation = prepare_run(config)
    for report in preparation.reports:
        console.print(data_table(report))
    console.print(f"report: {preparation.run.data_report}", soft_wrap=True, markup=False)


@app.command()
def show(
    configuration: Configuration,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many examples.")] = 2,
) -> None:
    """Print a few encoded examples, segments in colour, and which tokens each stage trains."""
    config = _load(configuration)
    from sftkey_dist.models.load import load_tokenizer
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.report.segments import colour_segments, mark_trained

    preparation = prepare_run(config)
    tokenizer = load_tokenizer(preparation.model_dir, config.model.trust_remote_code)
    for strategy in preparation.strategies:
        store = preparation.stores[strategy.form]
        for index in range(min(number, len(store))):
            ids, segments = store.example(index)
            console.rule(f"{strategy.name}: {store.example_ids([index])[0]}")
            console.print(colour_segments(tokenizer, ids, segments, store.segment_names))
            for stage in strategy.stages:
                console.print(mark_trained(tokenizer, ids, segments, stage.weights, f"stage {stage.name}"))


@app.command()
def train(configuration: Configuration) -> None:
    """Train every stage that the strategies need; finished ones are kept."""
    config = _load(configuration)
    from sftkey_dist.pipeline.prepare import prepare as prepare_run
    from sftkey_dist.pipeline.train import train as train_strategies

    preparation = prepare_run(config)
    train_strategies(config, preparation)
    console.print(f"models: {preparation.run.path / 'stages'}", soft_wrap=True, markup=False)


@app.command()
def evaluate(configuration: Configuration) -> None:
    """Generate and score the test set with the trained strategies; go on where an earlier evaluation stopped."""
    config = _load(configuration)
    from sftkey_dist.pipeline.compare import compare as compare_runs
    from sftkey_dist.pipeline.evaluate import evaluate as evaluate_strategies
    from sftkey_dist.pipeline.prepare import prepare as prepare_run

    evaluate_strategies(config, prepare_run(config))
    rows, files = compare_runs([config.run_dir])
    _show_comparison(rows, files)


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write; by default comparison.json in the first run.")
    ] = None,
) -> None:
    """Compare the strategies of finished runs: table, comparison.json, Markdown and plots."""
    from sftkey_dist.pipeline.compare import compare as compare_runs

    rows, files = compare_runs(run_dirs, out)
    _show_comparison(rows, files)


def main() -> None:
    """Entry point of the `sftkey` script: a user's mistake is one line on stderr and exit code 2."""
    # The driver computes nothing; left to search for an accelerator, DeepSpeed warns that it found none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with _user_errors_are_lines():
        app()


def _load(configuration: list[str]) -> RunConfig:
    """Tell files from overrides: an override has an `=`."""
    files = [Path(item) for item in configuration if "=" not in item]
    overrides = [item for item in configuration if "=" in item]
    if not files:
        raise ConfigError("give at least one configuration file, for example configs/quickstart.yaml")
    return load_config(files, overrides)


def _show_comparison(rows: list["ComparisonRow"], files: list[Path]) -> None:
    from sftkey_dist.report.tables import comparison_table

    console.print(comparison_table(rows))
    for file in files:
        console.print(f"written: {_relative(file)}", soft_wrap=True, markup=False)


def _relative(file: Path) -> Path:
    return Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file


@contextmanager
def _user_errors_are_lines() -> Iterator[None]:
    try:
        yield
    except InterruptedRunError:
        errors.print("interrupted; run the same command again to go on from the last checkpoint", markup=False)
        sys.exit(_INTERRUPTED)
    except TrainingError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False)
        errors.print("run the same command again to go on from the last checkpoint", markup=False)
        sys.exit(_TRAINING_STOPPED)
    except UserError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False)
        sys.exit(_USER_ERROR)
