"""Compares the prompts of a model with those that a server writes for the same rows, token by token."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey_dist.config.load import load_config
from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder, PromptError
from sftkey_dist.data.encoding.tokens import decode_ids
from sftkey_dist.data.example import Example
from sftkey_dist.data.whole import read_all
from sftkey_dist.endpoint.refusals import Refusal
from sftkey_dist.endpoint.threads import map_in_threads
from sftkey_dist.endpoint.tokenizing import Ids, ServedTokenizer
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.models.folder import fix_templates
from sftkey_dist.models.load import check_model_folder, load_tokenizer
from sftkey_dist.pipeline.base_model import template_settings
from sftkey_dist.pipeline.run_plan import limited
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.run import read_strategies

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS_BEFORE, _TOKENS_AFTER = 6, 6
_LONGEST_REFUSAL = 200


class Cause(StrEnum):
    """Why a server's ids differ."""

    TEMPLATE = "the chat template writes another text"
    TOKENIZER = "the tokenizer splits the same text differently, as when another model is loaded"
    REFUSED = "the server refuses the prompt"


@dataclass(frozen=True)
class ComparedModel:
    """The model folder whose prompts are compared, and the configuration that says which rows and prompts there are.

    ``is_prepared`` is whether the folder's chat template already contains what the configuration fixes in it.
    """

    folder: Path
    config: RunConfig
    is_prepared: bool


@dataclass(frozen=True)
class Difference:
    """A prompt for which the server's ids are not ours.

    Attributes:
        place: origin of the row.
        cause: why they differ.
        here: our ids.
        served: the server's ids; empty if it refuses the prompt.
        said: the server's message, if it refuses the prompt.
    """

    place: str
    cause: Cause
    here: Sequence[int]
    served: Sequence[int] = ()
    said: str = ""

    @property
    def position(self) -> int:
        """Index of the first token that differs."""
        pairs = zip_longest(self.here, self.served)
        return next(index for index, (ours, theirs) in enumerate(pairs) if ours != theirs)

    def lines(self, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
        """The difference in words, with the tokens around the first one that differs."""
        if self.cause is Cause.REFUSED:
            return [f"{self.place}: {self.cause}: {self.said}"]
        lengths = f"{len(self.here)} tokens here, {len(self.served)} on the server"
        return [
            f"{self.place}: token {self.position + 1} differs ({lengths}): {self.cause}",
            f"  here:   {_around(tokenizer, self.here, self.position)}",
            f"  server: {_around(tokenizer, self.served, self.position)}",
        ]


@dataclass(frozen=True)
class Parity:
    """The result of a comparison of ``num_rows`` prompts."""

    num_rows: int
    differences: tuple[Difference, ...]

    def summary(self) -> str:
        """The result in one line."""
        same = f"{self.num_rows - len(self.differences):,} of {self.num_rows:,} prompts have the same token ids"
        causes = Counter(difference.cause for difference in self.differences)
        counted = "; ".join(f"{count:,}: {cause}" for cause, count in causes.most_common())
        return f"{same}; {counted}" if counted else same


def find_compared(model: Path, files: Sequence[Path], overrides: Sequence[str]) -> ComparedModel:
    """Find the model folder and the configuration of a comparison.

    Args:
        model: a run, of which the last model is taken, or a model folder.
        files: configuration files; without any, the configuration of the run that the model belongs to.
        overrides: overrides of the configuration.

    Raises:
        ConfigError: the model belongs to no run and no file is given, or the configuration is not valid.
        ModelError: there is no such model folder.
    """
    run = next((run for run in map(RunDir, (model, *model.absolute().parents[2:3])) if run.strategies.is_file()), None)
    folder = _last_model(run) if run is not None and run.path == model.absolute() else model
    check_model_folder(folder, needs_weights=False)
    if files:
        return ComparedModel(folder, load_config(files, overrides), is_prepared=False)
    if run is None:
        raise ConfigError(
            f"{model}: this model belongs to no run, which would say which rows to compare; add a configuration file "
            f"with data.test, or give the folder of a run"
        )
    return ComparedModel(folder, load_config([run.config], overrides), is_prepared=not overrides)


def _last_model(run: RunDir) -> Path:
    (*_, strategy) = read_strategies(run).values()
    return StageDir(run.path / strategy.stages[-1].path).model


class PromptsHere:
    """The test prompts of a model, as they are trained and generated from."""

    def __init__(self, compared: ComparedModel, limit: int | None) -> None:
        """
        Args:
            compared: the model and its configuration.
            limit: maximum number of rows of each test set.

        Raises:
            DataError: the rows cannot be read, or the model's own chat template refuses one.
            ModelError: the tokenizer cannot be loaded.
        """
        config = compared.config
        test, _ = read_all(
            "test",
            config.data.test_sources,
            config.contract,
            config.data.max_bad_row_share,
            drop_duplicates=config.data.drop_duplicates,
        )
        self.examples = limited(limited(test, config.evaluation.limit), limit)
        self.tokenizer, self.prompts = _encoder(compared)
        self.texts = [self._text(example) for example in self.examples]

    @cached_property
    def ids(self) -> list[list[int]]:
        """Token ids of every prompt."""
        return self.prompts.ids(self.texts)

    def compare(self, served: ServedTokenizer, concurrency: int, progress: Callable[[int], None]) -> Parity:
        """Compare all prompts with the server's.

        Raises:
            ConfigError: the server no longer answers.
        """
        found: list[Difference] = []
        rows = list(zip(self.examples, self.texts, self.ids, strict=True))
        differences = map_in_threads(lambda row: self._compare(served, *row), rows, concurrency)
        for done, difference in enumerate(differences, start=1):
            found += [difference] if difference else []
            progress(done)
        return Parity(len(self.examples), tuple(found))

    def _compare(self, served: ServedTokenizer, example: Example, text: str, here: list[int]) -> Difference | None:
        there = self._served(served, example, text)
        if isinstance(there, Refusal):
            said = f"{there.status} {there.message}"[:_LONGEST_REFUSAL]
            return Difference(example.id, Cause.REFUSED, here, said=said)
        if there == here:
            return None
        is_tokenizers = not self.prompts.uses_chat or served.ids_of_text(text, add_special_tokens=False) != here
        return Difference(example.id, Cause.TOKENIZER if is_tokenizers else Cause.TEMPLATE, here, there)

    def _served(self, served: ServedTokenizer, example: Example, text: str) -> Ids:
        if self.prompts.uses_chat:
            return served.ids_of_chat(*self.prompts.request(example))
        return served.ids_of_text(text, add_special_tokens=True)

    def _text(self, example: Example) -> str:
        try:
            return self.prompts.text(example)
        except PromptError as error:
            raise DataError(f"{example.id}: prompt_refused: {error}") from error


def _encoder(compared: ComparedModel) -> tuple["PreTrainedTokenizerBase", PromptEncoder]:
    config, folder = compared.config, compared.folder
    tokenizer = load_tokenizer(folder, config.model.trust_remote_code)
    if compared.is_prepared:
        return tokenizer, PromptEncoder(tokenizer, config.prompt.of_prepared_model)
    settings = template_settings(config, folder)
    if settings.identity:
        fix_templates(tokenizer, settings)
    return tokenizer, PromptEncoder(tokenizer, config.prompt)


def _around(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], position: int) -> str:
    """The tokens around a position, which a bar precedes."""
    first, last = max(0, position - _TOKENS_BEFORE), position + _TOKENS_AFTER
    before = _tokens(tokenizer, ids[first:position])
    after = _tokens(tokenizer, ids[position:last]) or ["(the end)"]
    return " ".join([*(["…"] if first else []), *before, "|", *after, *(["…"] if last < len(ids) else [])])


def _tokens(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[str]:
    known = [token_id for token_id in ids if 0 <= token_id < len(tokenizer)]
    texts = dict(zip(known, decode_ids(tokenizer, [[token_id] for token_id in known]), strict=True))
    return [f"{i}:{texts[i]!r}" if i in texts else f"{i}:(unknown here)" for i in ids]
