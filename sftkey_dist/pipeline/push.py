"""Uploads the final model of a strategy to the Hugging Face hub: its folder as evaluated, with its model card."""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from sftkey_dist.config.secrets import in_a_line, without_credentials
from sftkey_dist.contract.response_schema import RESPONSE_SCHEMA
from sftkey_dist.errors import ConfigError, ModelError
from sftkey_dist.files import visible_files
from sftkey_dist.pipeline.finished import verify_models
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.model_card import model_card
from sftkey_dist.report.provenance import read_facts
from sftkey_dist.report.same_model import same_models
from sftkey_dist.run_dir import StageDir
from sftkey_dist.suggestion import closest_name

_CARD, _ADAPTER = "README.md", "adapter_config.json"
_DENIED = (401, 403)
_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]{40})/?$")
"""Where the hub's cache keeps a revision of a model."""
_BESIDE_ADAPTER = ("tokenizer*", "special_tokens_map.json", "chat_template*", "generation_config.json", RESPONSE_SCHEMA)
"""What else of a model's folder generation with an adapter needs."""


def push(run_dir: Path, strategy: str, repository: str, *, is_private: bool = False, adapter_only: bool = False) -> str:
    """Upload a model, and create the repository if it does not exist. Files that the repository has are not sent again.

    Args:
        run_dir: folder of a finished run.
        strategy: one of its strategies.
        repository: name of the repository, `owner/name`.
        is_private: whether a new repository is private.
        adapter_only: upload the adapter of a stage that trained one, instead of the model that it is merged into.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: there is no such strategy or adapter, or the repository's name is not valid.
        DataError: the run has not been evaluated, or a file of the model has changed since its stage ended.
        ModelError: the hub does not take it.
    """
    comparison = read_comparison([run_dir])
    row = _find(comparison, strategy)
    stage = row.stage_dirs()[-1]
    verify_models([stage])
    files = _files_of_adapter(stage) if adapter_only else _files_of_model(stage)
    (facts,) = read_facts([run_dir])
    library = "peft" if adapter_only else "transformers"
    same = same_models(comparison).get(strategy, "")
    files[_CARD] = model_card(row, facts, place=repository, library=library, same=same)
    with _laid_out(files) as folder:
        return _upload(folder, repository, f"Upload {strategy} of run {facts.name}", is_private=is_private)


def _upload(folder: Path, repository: str, message: str, *, is_private: bool) -> str:
    hub = huggingface_hub.HfApi(library_name="sftkey_dist")
    try:
        address = hub.create_repo(repository, private=is_private, exist_ok=True)
        hub.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message=message)
    except HFValidationError as error:
        raise ConfigError(f"REPO {repository}: {in_a_line(error)}") from error
    except Exception as error:  # the hub client raises many unrelated classes
        place = without_credentials(hub.endpoint)
        raise ModelError(f"{place}: cannot upload to {repository}: {_reason(error)}") from error
    return without_credentials(str(address))


def _find(comparison: Comparison, strategy: str) -> ComparisonRow:
    rows = {row.strategy: row for row in comparison.rows}
    if strategy not in rows:
        meant = closest_name(strategy, rows)
        hint = f"; did you mean {meant}?" if meant else ""
        raise ConfigError(f"STRATEGY {strategy}: the run has {', '.join(rows)}{hint}")
    return rows[strategy]


def _files_of_model(stage: StageDir) -> dict[str, Path | str]:
    """All files of a model's folder, by their names in the repository."""
    return {file.relative_to(stage.model).as_posix(): file for file in visible_files(stage.model)}


def _files_of_adapter(stage: StageDir) -> dict[str, Path | str]:
    """The files of an adapter, which names its base model as others find it, and what else generation needs.

    Raises:
        ConfigError: the stage trained no adapter, or one on top of a model that is not on the hub.
    """
    if not stage.adapter.is_dir():
        raise ConfigError("--adapter: the strategy's last stage trained all weights; leave the option out")
    config = json.loads((stage.adapter / _ADAPTER).read_text(encoding="utf-8"))
    snapshot = _SNAPSHOT.search(str(config["base_model_name_or_path"]))
    if snapshot is None:
        raise ConfigError(
            f"--adapter: the adapter belongs to the model in {config['base_model_name_or_path']}, which is not on the "
            f"hub; leave the option out to upload the model that it is merged into"
        )
    config |= {"base_model_name_or_path": snapshot[1].replace("--", "/"), "revision": snapshot[2]}
    own = {file.name: file for file in stage.adapter.iterdir() if file.is_file()}
    beside = {file.name: file for pattern in _BESIDE_ADAPTER for file in stage.model.glob(pattern)}
    return {**beside, **own, _ADAPTER: json.dumps(config, indent=2) + "\n"}


@contextmanager
def _laid_out(files: dict[str, Path | str]) -> Iterator[Path]:
    """A folder with links to files, and with new files of a text."""
    with tempfile.TemporaryDirectory(prefix="sftkey-push-") as scratch:
        for name, content in files.items():
            file = Path(scratch, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                file.symlink_to(content.absolute())
            else:
                file.write_text(content, encoding="utf-8")
        yield Path(scratch)


def _reason(error: Exception) -> str:
    """What went wrong, and what to do about it; a token is never part of it."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in _DENIED or isinstance(error, LocalTokenNotFoundError):
        return "the hub asks for a token that may write there; set HF_TOKEN, or run `hf auth login`"
    return f"{in_a_line(error)}; run the same command again to continue"
