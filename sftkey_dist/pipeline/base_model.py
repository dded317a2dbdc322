"""The folder of the base model from which all strategies of a run start."""

import datetime
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console
from sftkey_dist.contract import ContractError, Form, ResponseContract
from sftkey_dist.data.building.task import cached_tokenizer
from sftkey_dist.data.example import Example
from sftkey_dist.data.prepare import first_examples
from sftkey_dist.data.rows.shards import content_digest
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import ConfigError, TransientDataError, UserError
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
from sftkey_dist.models.special_tokens import add_special_tokens, lacks_tokens
from sftkey_dist.run_dir import RunDir

_TOKENIZER_EXAMPLES = 20_000
"""Maximum number of examples from which the tokenizer of an embedded model is trained."""
_LOWEST_RATE_FROM_SCRATCH = 1e-4
"""Below this, a model with random weights learns nothing in a few hundred steps."""


@contextmanager
def base_models_kept_if_prepared(run: RunDir) -> Iterator[None]:
    """Delete the base models that the block has made if it fails by a mistake of the user: nothing else uses them."""
    before = set(run.path.glob("base_model-*"))
    try:
        yield
    except TransientDataError:
        raise
    except UserError:
        for folder in set(run.path.glob("base_model-*")) - before:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def base_model(config: RunConfig, run: RunDir, needs_weights: bool) -> Path:
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
            f"warning: model.embedded starts from random weights, for which "
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


def printed_date(config: RunConfig, run: RunDir, folder: Path, text: str | None) -> datetime.date | None:
    """The date in prompts, if the chat template prints the date. It stays the same when the run is prepared again."""
    if config.prompt.template == "plain" or not any(map(reads_clock, _templates(config, folder, text))):
        return None
    date = config.prompt.date or run.first_prepared()
    console.print(f"the chat template prints the date: it is {date} throughout the run", soft_wrap=True, markup=False)
    return date


def with_template(config: RunConfig, run: RunDir, folder: Path, settings: TemplateSettings) -> Path:
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
        examples = first_examples(config.data, config.contract, _TOKENIZER_EXAMPLES)
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
