"""Everything before the first stage: checks, base model, encoded stores, data report."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.config.schema import RunConfig
from sftkey_dist.console import console, progress_line
from sftkey_dist.contract import ContractError, Form, ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.data.prepare import PreparedData, SourceData, prepare_store, read_source
from sftkey_dist.data.prompt import PromptEncoder
from sftkey_dist.data.report import DataReport, summarize_source
from sftkey_dist.files import digest_json, write_json_atomically
from sftkey_dist.models.embedded import make_embedded_model
from sftkey_dist.models.load import load_tokenizer, locate_model
from sftkey_dist.run_dir import RunDir
from sftkey_dist.strategy import Strategy, resolve_strategies


@dataclass(frozen=True)
class Preparation:
    """What training and evaluation start from."""

    run: RunDir
    strategies: tuple[Strategy, ...]
    model_dir: Path
    train: SourceData
    test: SourceData
    stores: dict[Form, PreparedData]
    end_of_turn_id: int

    @property
    def reports(self) -> list[DataReport]:
        """The data report of each store."""
        return [prepared.report for prepared in self.stores.values()]


def prepare(config: RunConfig) -> Preparation:
    """Find every mistake in configuration, data and model first; then write model, stores and report."""
    strategies = resolve_strategies(config)
    train = read_source("train", config.data.train, config.data.max_bad_row_share)
    test = read_source("test", config.data.test, config.data.max_bad_row_share)
    run = RunDir(config.run_dir)
    model_dir = _base_model(config, run, train.examples)
    tokenizer = load_tokenizer(model_dir, config.model.trust_remote_code)
    end_of_turn_id = PromptEncoder(tokenizer, config.prompt).end_of_turn_id
    forms = sorted({strategy.form for strategy in strategies})
    stores = {form: _prepare_form(config, form, train, tokenizer) for form in forms}
    preparation = Preparation(run, strategies, model_dir, train, test, stores, end_of_turn_id)
    _report(preparation)
    write_json_atomically(run.config, config.model_dump(mode="json"))
    return preparation


def _report(preparation: Preparation) -> None:
    """Say on the console and in a file what became of every row."""
    test = summarize_source(preparation.test.name, len(preparation.test.examples), preparation.test.refusals)
    for report in (*preparation.reports, test):
        console.print(report.one_line(), soft_wrap=True, markup=False)
    write_json_atomically(
        preparation.run.data_report,
        {"sets": [report.to_json() for report in preparation.reports], "test": test.to_json()},
    )


def _prepare_form(config: RunConfig, form: Form, train: SourceData, tokenizer: Any) -> PreparedData:
    def progress(batches: Iterable[Sequence[Example]], total: int) -> Iterator[Sequence[Example]]:
        with progress_line(f"encoding train ({form.value})", total) as line:
            for done, batch in enumerate(batches, start=1):
                yield batch
                line.update(done)

    return prepare_store(train, form, config.contract, config.prompt, config.data, tokenizer, progress)


def _base_model(config: RunConfig, run: RunDir, examples: Sequence[Example]) -> Path:
    """The folder of the base model; an embedded one is made once per (shape, data, seed)."""
    embedded = config.model.embedded
    if embedded is None:
        return locate_model(config.model)
    texts = [text for example in examples for text in _texts(example, config.contract)]
    folder = run.base_model(digest_json([embedded.model_dump(), config.seed, texts]))
    if not folder.is_dir():
        make_embedded_model(folder, embedded, texts, config.seed)
    return folder


def _texts(example: Example, contract: ResponseContract) -> list[str]:
    """What the embedded tokenizer learns from: the prompt, and the response in the forms it can take."""
    texts = [example.prompt]
    for form in Form:
        try:
            texts.append("".join(piece.text for piece in contract.render(example.values, form)))
        except ContractError:
            continue  # encoding refuses and counts the row
    return texts
