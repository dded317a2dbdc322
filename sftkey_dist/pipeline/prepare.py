"""Prepares a run: checks, base model, encoded stores, data report."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sftkey_dist.cluster.connection import connected
from sftkey_dist.cluster.gate import named_cluster
from sftkey_dist.config.data import DataConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console, progress_when_known
from sftkey_dist.contract import Form
from sftkey_dist.data.adapters.layouts import make_adapter
from sftkey_dist.data.building.task import cached_tokenizer
from sftkey_dist.data.encoding.prompt import PromptEncoder, PromptError
from sftkey_dist.data.example import PROMPT_REFUSED, Example, Refusal
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.data.malformed import NONE_HELD_OUT, HeldOut, malformed, require_few
from sftkey_dist.data.prepare import Runner, prepare_store
from sftkey_dist.data.report import DataReport, SourceReport, summarize, summarize_source
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.data.whole import read_all
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.answers.choose import checks_in_words, choose_checks
from sftkey_dist.files import holds_json, write_json_atomically
from sftkey_dist.models.load import model_fingerprint
from sftkey_dist.models.problem import writing_named
from sftkey_dist.models.requirements import (
    require_heads_for,
    require_plain_logits,
    require_positions_within,
    require_routers,
    require_row_per_token,
    require_trainable,
)
from sftkey_dist.models.shape import read_shape
from sftkey_dist.pipeline.base_model import (
    base_model,
    base_models_kept_if_prepared,
    printed_date,
    template_settings,
    with_template,
)
from sftkey_dist.pipeline.data_rows import noted_rows
from sftkey_dist.pipeline.encoding import encoding_of
from sftkey_dist.pipeline.environment import describe_environment
from sftkey_dist.pipeline.evaluation_checks import check_evaluation, reference_reader
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.run import DATA_ROWS, train_set_name
from sftkey_dist.strategy import Strategy, resolve_strategies
from sftkey_dist.tracking import require_packages


def prepare(config: RunConfig, *, needs_weights: bool = True, keeps_records: bool = True) -> Preparation:
    """Check configuration, data and model, then write the base model and the stores.

    Configuration and provenance are also written, unless the run was trained: then training and evaluation update them.

    Args:
        config: configuration of the run.
        needs_weights: whether the model's weights are needed, not only its configuration and tokenizer.
        keeps_records: whether to write the configuration and provenance; not where another command uses the run.
    """
    _require_own_folder(RunDir(config.run_dir))
    strategies = resolve_strategies(config)
    _check_sources(config)
    check_evaluation(config)
    require_packages(config.tracking)
    test, refused = read_all(
        "test",
        config.data.test_sources,
        config.contract,
        config.data.max_bad_row_share,
        reference_reader(config),
        drop_duplicates=config.data.drop_duplicates,
    )
    run = RunDir(config.run_dir)
    with base_models_kept_if_prepared(run) if keeps_records else nullcontext():
        preparation = _prepared(config, run, strategies, test, refused, needs_weights)
    if keeps_records and not run.strategies.is_file():
        write_configuration(config, preparation)
        write_provenance(preparation)
    return preparation


def _require_own_folder(run: RunDir) -> None:
    """The folder must not be one of another program, such as a model's, whose config.json would be replaced.

    Raises:
        ConfigError: its config.json is not that of a run.
    """
    try:
        content = json.loads(run.config.read_bytes()) if run.config.is_file() else {"run_dir": ""}
    except ValueError:
        content = None
    if not (isinstance(content, dict) and "run_dir" in content):
        raise ConfigError(
            f"run_dir={run.path}: its config.json is not that of a run, and would be replaced; choose another folder, "
            f"such as {run.path / 'run'}"
        )


def _prepared(
    config: RunConfig,
    run: RunDir,
    strategies: tuple[Strategy, ...],
    test: list[Example],
    refused: Sequence[Refusal],
    needs_weights: bool,
) -> Preparation:
    """Write the base model and the stores, and report on the data."""
    with writing_named(run.path):
        base = base_model(config, run, needs_weights)
        fixed = template_settings(config, base)
        settings = replace(fixed, date=printed_date(config, run, base, fixed.template))
        model_dir = with_template(config, run, base, settings) if settings.identity else base
    require_trainable(model_dir, config.model.trust_remote_code)
    tokenizer = cached_tokenizer(model_dir, config.model.trust_remote_code)
    prompts = PromptEncoder(tokenizer, config.prompt.of_prepared_model)
    test, refused = _with_prompts(prompts, test, refused, config.data)
    special_tokens_in_test = Counter(token for example in test for token in set(prompts.special_tokens_in(example)))
    shape = read_shape(model_dir, config.model.trust_remote_code)
    require_row_per_token(model_dir, shape, tokenizer, prompts.special_ids(special_tokens_in_test))
    require_heads_for(model_dir, shape, config.training.sequence_parallel_ranks)
    require_positions_within(model_dir, shape, config.data.max_length_tokens, config.training.micro_batch_tokens)
    if config.training.logit_chunk_positions is not None:
        require_plain_logits(model_dir, shape)
    if any(stage.optimization.router_loss_weight for strategy in strategies for stage in strategy.stages):
        require_routers(model_dir, shape)
    forms = sorted({strategy.form for strategy in strategies})
    stores = {form: _prepare_form(config, form, model_dir, test, refused) for form in forms}
    for store in stores.values():
        require_row_per_token(model_dir, shape, tokenizer, prompts.special_ids(store.special_tokens_in_prompts))
    reports = _reports(config, stores, test)
    test_report = summarize_source("test", test, refused, special_tokens_in_test)
    answer_checks = checks_in_words(choose_checks(config.data.test_sources, config.contract, config.evaluation))
    _say(reports, test_report, answer_checks)
    return Preparation(
        run,
        strategies,
        model_dir,
        model_fingerprint(model_dir),
        test,
        stores,
        reports,
        test_report,
        refused,
        answer_checks,
        settings.date,
        prompts.end_of_turn_id,
    )


def write_configuration(config: RunConfig, preparation: Preparation) -> None:
    """Write the resolved configuration to `config.json`."""
    dated = config.prompt.model_copy(update={"date": preparation.date or config.prompt.date})
    content = config.model_copy(update={"prompt": dated}).model_dump(mode="json")
    write_json_atomically(preparation.run.config, content)


def write_provenance(preparation: Preparation) -> None:
    """Write the data report with the rows that it counts, plots of the lengths, and the environment of the run."""
    run, sets = preparation.run, [report.to_json() for report in preparation.reports]
    test = preparation.test_report.to_json() | {"answer_checks": preparation.answer_checks}
    content = {"sets": sets, "test": test}
    plots = {run.length_plot(form.value): store for form, store in preparation.stores.items()}
    if not (holds_json(run.data_report, content) and all(plot.is_file() for plot in plots)):
        from sftkey_dist.report.plots import plot_lengths  # loads matplotlib

        for plot, store in plots.items():
            plot_lengths(store.segment_counts, store.segment_names, plot)
    DATA_ROWS.write(run.data_rows, noted_rows(preparation))
    write_json_atomically(run.data_report, content)  # after the plots, whose data it tells
    write_json_atomically(run.environment, describe_environment())


def _check_sources(config: RunConfig) -> None:
    """Check what a source says about columns, rules and labels before any of its rows is read.

    Raises:
        ConfigError: the message names the source by its key.
    """
    for key, sources in (("train", config.data.train), ("test", config.data.test)):
        for number, source in enumerate(sources):
            if source.adapter == "decision_memos":
                continue
            try:
                make_adapter(source, config.contract)
            except ConfigError as error:
                place = f"data.{key}.{number}" if len(sources) > 1 else f"data.{key}"
                raise ConfigError(f"{place}.{error}") from None


def _with_prompts(
    prompts: PromptEncoder, test: Sequence[Example], refused: Sequence[Refusal], data: DataConfig
) -> tuple[list[Example], list[Refusal]]:
    """The test examples whose prompts can be written, so that the evaluation does not fail after the training.

    Returns:
        These examples, and all refused rows of the test sets.

    Raises:
        DataError: More rows are malformed than allowed, or no example is left.
    """
    written, unwritten = [], []
    for example in test:
        try:
            prompts.text(example)
            written.append(example)
        except PromptError as error:
            unwritten.append(Refusal(example.id, PROMPT_REFUSED, str(error)))
    found = [*unwritten, *refused]
    if unwritten and not (data.split and written):  # those of a split count with the rows that are trained
        require_few("test", malformed(found), len(test) + len(refused), data.max_bad_row_share if written else 0.0)
    return written, found


def _prepare_form(
    config: RunConfig, form: Form, model_dir: Path, test: Sequence[Example], refused: Sequence[Refusal]
) -> EncodedStore:
    dropped = frozenset(example_hashes(example)[0] for example in test) if config.data.drop_overlap else frozenset()
    held_out = HeldOut(len(test) + len(refused), tuple(malformed(refused))) if config.data.split else NONE_HELD_OUT
    with progress_when_known(f"encoding train ({form.value})") as progress:
        return prepare_store(
            "train",
            config.data,
            encoding_of(config, form, model_dir),
            _runner(config),
            progress,
            dropped,
            held_out,
            waits=partial(_say_it_waits, form),
        )


def _say_it_waits(form: Form) -> None:
    console.print(f"another command is encoding the same data ({form.value}); this one waits for it", soft_wrap=True)


def _runner(config: RunConfig) -> Runner | None:
    """Encode on the nodes of a named cluster. A private one has no more processors than processes of this machine."""
    if named_cluster(config.cluster) is None:
        return None

    def run(work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        from sftkey_dist.data.building.on_ray import run_on_ray  # loads Ray Data

        with connected(config.cluster, 1):
            yield from run_on_ray(work, tasks)

    return run


def _reports(config: RunConfig, stores: Mapping[Form, EncodedStore], test: Sequence[Example]) -> list[DataReport]:
    # Two test sets may read the same file with different prompts.
    test_prompts = {f"{example.data_set} {example.id}": example_hashes(example)[0] for example in test}
    return [
        summarize(
            train_set_name(form.value),
            store,
            [segment.name for segment in config.contract.key_segments],
            test_prompts,
            config.data.max_length_tokens,
            config.evaluation.max_new_tokens,
        )
        for form, store in stores.items()
    ]


def _say(reports: Sequence[DataReport], test: SourceReport, answer_checks: str) -> None:
    """Print the report of each set, how answers will be compared, and warnings."""
    for report in (*reports, test):
        console.print(report.one_line(), soft_wrap=True, markup=False)
    console.print(answer_checks, soft_wrap=True, markup=False)
    for warning in dict.fromkeys(warning for report in (*reports, test) for warning in report.warnings()):
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
