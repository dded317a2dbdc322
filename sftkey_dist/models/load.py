"""Finds the folder of a base model and loads its tokenizer, with errors that say what is missing."""

from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
import transformers

from sftkey_dist.config.model import ModelConfig
from sftkey_dist.config.paths import is_local_model
from sftkey_dist.contract.response_schema import RESPONSE_SCHEMA
from sftkey_dist.digests import digest_json
from sftkey_dist.errors import ModelError
from sftkey_dist.models.digests import known_digest
from sftkey_dist.models.problem import loading_problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
_HUB_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_WEIGHTS = "*.safetensors"
_OTHER_FORMATS = ["consolidated*", "original/*", "metal/*"]
"""Copies of the weights for other libraries."""
PROVENANCE = "provenance.json"
"""File in the folder of a trained model that records its origin. Libraries that load the model ignore it."""


def locate_model(config: ModelConfig, *, needs_weights: bool = True) -> Path:
    """The local folder of ``model.path``. A model on the hub is downloaded (safetensors only) into the hub's cache.

    Args:
        config: the model's configuration.
        needs_weights: if false, only the configuration and the tokenizer are required and downloaded.

    Raises:
        ModelError: There is no such folder or hub id, or the folder lacks configuration, tokenizer or weights.
    """
    path = config.path or ""
    folder = Path(path).expanduser().absolute() if is_local_model(path) else _download(config, needs_weights)
    check_model_folder(folder, needs_weights=needs_weights)
    return folder


def check_model_folder(folder: Path, *, needs_weights: bool = True) -> None:
    """Check that a folder contains a model that can be trained or evaluated.

    Args:
        folder: the model's folder.
        needs_weights: whether it must contain weights.

    Raises:
        ModelError: It does not.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json; this is not a Hugging Face model folder")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{folder}: no tokenizer (tokenizer.json and tokenizer_config.json); save the model's tokenizer there "
            f"with tokenizer.save_pretrained"
        )
    if needs_weights and not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no .safetensors weights; convert pickled weights with save_pretrained")


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Load the fast tokenizer of a folder.

    Raises:
        ModelError: It cannot be loaded, or is not a fast tokenizer.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # a damaged tokenizer.json raises unrelated classes
        raise ModelError(f"{folder}: cannot load the tokenizer: {loading_problem(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: a fast tokenizer (tokenizer.json) is needed, found {type(tokenizer).__name__}")
    return tokenizer


def model_fingerprint(folder: Path) -> str:
    """Digest of the files of a model that are read, regardless of its path and of other files in the folder."""
    read = [*_HUB_FILES, _WEIGHTS, "*.py"]
    found = {file for pattern in read for file in folder.glob(pattern) if file.is_file()}
    files = found - {folder / PROVENANCE, folder / RESPONSE_SCHEMA}
    return digest_json([[file.name, known_digest(file)] for file in sorted(files)])


def _download(config: ModelConfig, needs_weights: bool) -> Path:
    files = [*_HUB_FILES, *([_WEIGHTS] if needs_weights else []), *(["*.py"] if config.trust_remote_code else [])]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                config.path or "", revision=config.revision, allow_patterns=files, ignore_patterns=_OTHER_FORMATS
            )
        )
    except Exception as error:  # the hub client raises many unrelated classes
        raise ModelError(
            f"cannot load model {config.path!r} from the hub: {loading_problem(error)}; a path to a "
            f"local folder must begin with ./ or /"
        ) from error
