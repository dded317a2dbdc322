"""Prepares a run: checks, base model, encoded stores, data report."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftkey_dist.cluster import connected
from sftkey_dist.cluster_gate import named_cluster
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console, progress_when_known
from sftkey_dist.contract import ContractError, Form, ResponseContract
from sftkey_dist.data.adapters import make_adapter
from sftkey_dist.data.example import Example
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.data.prepare import Runner, first_examples, prepare_store, read_all
from sftkey_dist.data.prompt import PromptEncoder, PromptError
from sftkey_dist.data.report import DataReport, SourceReport, summarize, summarize_source
from sftkey_dist.data.rows.shards import content_digest
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.data.task import cached_tokenizer
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.files import holds_json, write_json_atomically
from sftkey_dist.models.chat_template import (
    TemplateSettings,
    chat_templates,
    reads_clock,
    unused_argument,
    variables_of,
)
from sftkey_dist.models.embedded import make_embedded_model
from sftkey_dist.models.folder import write_with_template
from sftkey_dist.models.load import locate_model, model_fingerprint
from sftkey_dist.models.problem import writing_named
from sftkey_dist.models.shape import read_shape, require_heads_for, require_routers, require_row_per_token
from sftkey_dist.models.special_tokens import add_special_tokens, lacks_tokens
from sftkey_dist.pipeline.encoding import encoding_of
from sftkey_dist.pipeline.environment import describe_environment
from sftkey_dist.pipeline.evaluation_checks import check_evaluation, reference_reader
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.run import train_set_name
from sftkey_dist.strategy import resolve_strategies
from sftkey_dist.tracking import require_packages

_TOKENIZER_EXAMPLES = 20_000
"""Maximum number of examples from which the tokenizer of an embedded model is trained."""
_LOWEST_RATE_FROM_SCRATCH = 1e-4
"""Below this, a model with random weights learns nothing in a few hundred steps."""


def prepare(config: RunConfig, *, needs_weights: bool = True, keeps_records: bool = True) -> Preparation:
    """Check configuration, data and model, then write the base model and the stores.

    Configuration and provenance are also written, unless the run was trained: then training and evaluation update them.

    Args:
        config: configuration of the run.
        needs_weights: whether the model's weights are needed, not only its configuration and tokenizer.
        keeps_records: whether to write the configuration and provenance; not where another command uses the run.
    """
    strategies = resolve_strategies(config)
    for source in (*config.data.train, *config.data.test):
        if source.adapter != "decision_memos":
            make_adapter(source, config.contract)
    check_evaluation(config)
    require_packages(config.tracking)
    test, refused = read_all(
        "test", config.data.test_sources, config.contract, config.data.max_bad_row_share, reference_reader(config)
    )
    run = RunDir(config.run_dir)
    with writing_named(run.path):
        base = _base_model(config, run, needs_weights)
        fixed = template_settings(config, base)
        settings = replace(fixed, date=_printed_date(config, run, base, fixed.template))
        model_dir = _with_template(config, run, base, settings) if settings.identity else base
    tokenizer = cached_tokenizer(model_dir, config.model.trust_remote_code)
    prompts = PromptEncoder(tokenizer, config.prompt.of_prepared_model)
    special_tokens_in_test = _check_prompts(prompts, test)
    shape = read_shape(model_dir, config.model.trust_remote_code)
    require_row_per_token(model_dir, shape, tokenizer, prompts.special_ids(special_tokens_in_test))
    require_heads_for(model_dir, shape, config.training.sequence_parallel_ranks)
    if any(stage.optimization.router_loss_weight for strategy in strategies for stage in strategy.stages):
        require_routers(model_dir, shape)
    forms = sorted({strategy.form for strategy in strategies})
    stores = {form: _prepare_form(config, form, model_dir, test) for form in forms}
    for store in stores.values():
        require_row_per_token(model_dir, shape, tokenizer, prompts.special_ids(store.special_tokens_in_prompts))
    reports = _reports(config, stores, test)
    test_report = summarize_source("test", test, refused, special_tokens_in_test)
    _say(reports, test_report)
    preparation = Preparation(
        run,
        strategies,
        model_dir,
        model_fingerprint(model_dir),
        test,
        stores,
        reports,
        test_report,
        settings.date,
        prompts.end_of_turn_id,
    )
    if keeps_records and not run.strategies.is_file():
        write_configuration(config, preparation)
        write_provenance(preparation)
    return preparation


def write_configuration(config: RunConfig, preparation: Preparation) -> None:
    """Write the resolved configuration to `config.json`."""
    dated = config.prompt.model_copy(update={"date": preparation.date or config.prompt.date})
    content = config.model_copy(update={"prompt": dated}).model_dump(mode="json")
    write_json_atomically(preparation.run.config, content)


def write_provenance(preparation: Preparation) -> None:
    """Write the data report, plots of the lengths, and the environment of the run."""
    run, sets = preparation.run, [report.to_json() for report in preparation.reports]
    content = {"sets": sets, "test": preparation.test_report.to_json()}
    plots = {run.length_plot(form.value): store for form, store in preparation.stores.items()}
    if not (holds_json(run.data_report, content) and all(plot.is_file() for plot in plots)):
        from sftkey_dist.report.plots import plot_lengths  # loads matplotlib

        for plot, store in plots.items():
            plot_lengths(store.segment_counts, store.segment_names, plot)
    write_json_atomically(run.data_report, content)  # after the plots, whose data it tells
    write_json_atomically(run.environment, describe_environment())


def _check_prompts(prompts: PromptEncoder, test: Sequence[Example]) -> Counter[str]:
    """Check that every test prompt can be rendered, so that the evaluation does not fail after the training.

    Returns:
        The number of examples whose prompt contains the text of a special token, by token.
    """
    specials: Counter[str] = Counter()
    for example in test:
        try:
            prompts.text(example)
        except PromptError as error:
            raise DataError(f"{example.id}: prompt_refused: {error}") from error
        specials.update(set(prompts.special_tokens_in(example)))
    return specials


def _prepare_form(config: RunConfig, form: Form, model_dir: Path, test: Sequence[Example]) -> EncodedStore:
    dropped = frozenset(example_hashes(example)[0] for example in test) if config.data.drop_overlap else frozenset()
    with progress_when_known(f"encoding train ({form.value})") as progress:
        return prepare_store(
            "train", config.data, encoding_of(config, form, model_dir), _runner(config), progress, dropped
        )


def _runner(config: RunConfig) -> Runner | None:
    """Encode on the nodes of a named cluster. A private Ray cluster on a laptop would only take memory."""
    if named_cluster(config.cluster) is None:
        return None

    def run(work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        from sftkey_dist.data.on_ray import run_on_ray  # loads Ray Data

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


def _say(reports: Sequence[DataReport], test: SourceReport) -> None:
    """Print the report of each set, and warnings."""
    for report in (*reports, test):
        console.print(report.one_line(), soft_wrap=True, markup=False)
    for warning in dict.fromkeys(warning for report in (*reports, test) for warning in report.warnings()):
        console.print(f"look at the data: {warning}", soft_wrap=True, markup=False)


def _base_model(config: RunConfig, run: RunDir, needs_weights: bool) -> Path:
    """The folder of the base model, with the contract's special tokens added if it has any."""
    if config.model.embedded:
        _warn_of_a_low_rate(config.optimization.learning_rate)
        folder = _make_embedded(config, run)
    else:
        folder = locate_model(config.model, needs_weights=needs_weights)
    tokens = config.contract.special_tokens
    if not lacks_tokens(folder, tokens, config.model.trust_remote_code):
        return folder
    extended = run.base_model(digest_json([model_fingerprint(folder), tokens]))
    if not extended.is_dir():
        add_special_tokens(folder, extended, tokens, config.model.trust_remote_code)
    return extended


def _warn_of_a_low_rate(learning_rate: float) -> None:
    if learning_rate < _LOWEST_RATE_FROM_SCRATCH:
        console.print(
            f"look at the settings: model.embedded starts from random weights, for which "
            f"optimization.learning_rate={learning_rate:g} is too low; configs/quickstart.yaml uses 4e-3",
            soft_wrap=True,
            markup=False,
        )


def template_settings(config: RunConfig, folder: Path) -> TemplateSettings:
    """What the configuration fixes in the chat template of a model's folder, apart from the date.

    Raises:
        ConfigError: the template's file cannot be read, or the template does not use an argument.
    """
    if config.prompt.template == "plain":
        return TemplateSettings()
    settings = TemplateSettings(_template_file(config.prompt), config.prompt.template_arguments)
    if settings.arguments:
        templates = _templates(config, folder, settings.template)
        if not templates:
            raise ConfigError("prompt.template_arguments: the tokenizer has no chat template; set prompt.chat_template")
        variables = frozenset[str]().union(*map(variables_of, templates))
        if unused := unused_argument(variables, settings.arguments):
            raise ConfigError(f"prompt.template_arguments: {unused}")
    return settings


def _templates(config: RunConfig, folder: Path, text: str | None) -> list[str]:
    """The chat templates of a model's folder, or the one that replaces them, without arguments."""
    tokenizer = cached_tokenizer(folder, config.model.trust_remote_code)
    return list(TemplateSettings(text).applied(chat_templates(tokenizer)).values())


def _template_file(prompt: PromptConfig) -> str | None:
    if prompt.chat_template is None:
        return None
    try:
        text = prompt.chat_template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigError(f"prompt.chat_template: {prompt.chat_template} cannot be read ({reason})") from error
    if not text.strip():
        raise ConfigError(f"prompt.chat_template: {prompt.chat_template} is empty")
    return text


def _printed_date(config: RunConfig, run: RunDir, folder: Path, text: str | None) -> datetime.date | None:
    """The date in prompts, if the chat template prints the date. It stays the same when the run is prepared again."""
    if config.prompt.template == "plain" or not any(map(reads_clock, _templates(config, folder, text))):
        return None
    date = config.prompt.date or run.first_prepared()
    console.print(f"the chat template prints the date: it is {date} throughout the run", soft_wrap=True, markup=False)
    return date


def _with_template(config: RunConfig, run: RunDir, folder: Path, settings: TemplateSettings) -> Path:
    """A copy of the model with what is fixed in its template, for training, generation and servers of the result."""
    fixed = run.base_model(digest_json([model_fingerprint(folder), *settings.identity]))
    if not fixed.is_dir():
        write_with_template(folder, fixed, settings, config.model.trust_remote_code)
    return fixed


def _make_embedded(config: RunConfig, run: RunDir) -> Path:
    """The embedded model, which is created once per shape, data and seed."""
    assert config.model.embedded is not None  # noqa: S101 (for the type checker)
    sources = [[source.reading, content_digest(source)] for source in config.data.train_sources]
    folder = run.base_model(
        digest_json([config.model.embedded.model_dump(), config.seed, sources, config.contract.model_dump(mode="json")])
    )
    if not folder.is_dir():
        examples = first_examples(config.data.train_sources, config.contract, _TOKENIZER_EXAMPLES)
        texts = [text for example in examples for text in _texts(example, config.contract)]
        make_embedded_model(folder, config.model.embedded, texts, config.seed)
    return folder


def _texts(example: Example, contract: ResponseContract) -> list[str]:
    """Training texts of the embedded tokenizer: the prompt, and the response in all its forms."""
    texts = [example.prompt]
    for form in Form:
        try:
            texts.append("".join(piece.text for piece in contract.render(example.values, form)))
        except ContractError:
            continue  # encoding refuses and counts the row
    return texts
