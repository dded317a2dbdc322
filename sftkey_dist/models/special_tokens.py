"""Adds tags as special tokens to a model folder, with entries in the tokenizer and rows in the embeddings.

The folder is rewritten without loading the model, and only the file that contains the embeddings changes. So a 70B
model can be extended on any machine, and training with ZeRO-3 loads an ordinary folder of the right shape.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor

from sftkey_dist.errors import ModelError
from sftkey_dist.files import folder_written_whole
from sftkey_dist.models.folder import link_file, save_over
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.models.requirements import require_row_per_token
from sftkey_dist.models.weight_files import INDEX, ONE_FILE
from sftkey_dist.reading import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def lacks_tokens(folder: Path, tokens: Sequence[str], trust_remote_code: bool = False) -> bool:
    """Whether a folder's tokenizer splits any of these texts into several tokens."""
    if not tokens:
        return False
    tokenizer = load_tokenizer(folder, trust_remote_code)
    return any(len(ids) != 1 for ids in tokenizer(list(tokens), add_special_tokens=False)["input_ids"])


def add_special_tokens(source: Path, target: Path, tokens: Sequence[str], trust_remote_code: bool = False) -> None:
    """Write ``source`` with these special tokens to ``target``.

    The row of a new token is initialised with the mean of the rows of the tokens that its text consisted of before. So
    tags differ, start near known embeddings, and are the same on every machine.

    Raises:
        ModelError: The embeddings cannot be found in the folder, or have no row for an existing token.
    """
    tokenizer = load_tokenizer(source, trust_remote_code)
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    require_row_per_token(source, config, tokenizer)
    parts = tokenizer(list(tokens), add_special_tokens=False)["input_ids"]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)
    new_ids = tokenizer.convert_tokens_to_ids(list(tokens))
    text_config = config.get_text_config()
    num_rows = max(int(text_config.vocab_size), len(tokenizer))
    names = _embedding_names(config, trust_remote_code)
    files = _files_of(source, names)
    with folder_written_whole(target) as scratch:
        for file in source.iterdir():
            if file.is_file() and file not in files:
                link_file(file, scratch / file.name)
        for file in files:
            _rewrite(file, scratch / file.name, names, lambda rows: _extended(rows, num_rows, parts, new_ids))
        text_config.vocab_size = num_rows
        _replace_saved(scratch, config, tokenizer)


def _embedding_names(config: "PreTrainedConfig", trust_remote_code: bool) -> set[str]:
    """Names of the parameters with one row per token, found without weights."""
    with torch.device("meta"):
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(
            config, trust_remote_code=trust_remote_code
        )
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    owned = {id(p) for layer in layers if layer is not None for p in layer.parameters(recurse=False)}
    return {name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in owned}


def _files_of(folder: Path, names: set[str]) -> set[Path]:
    """The weight files that contain these parameters; a tied parameter is in no file."""
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX, "fetch the model again")["weight_map"]
    else:
        with safe_open(folder / ONE_FILE, framework="pt") as file:
            weight_map = dict.fromkeys(file.keys(), ONE_FILE)
    found = {folder / weight_map[name] for name in names if name in weight_map}
    if not found:
        raise ModelError(
            f"{folder}: no weights named {', '.join(sorted(names))}, so tags cannot become special tokens; set "
            f"contract.special_token_tags=false"
        )
    return found


def _rewrite(source: Path, target: Path, names: set[str], extend: Any) -> None:
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    tensors |= {name: extend(tensors[name]) for name in names & tensors.keys()}
    save_file(tensors, target, metadata=metadata)


def _extended(rows: Tensor, num_rows: int, parts: Sequence[Sequence[int]], new_ids: Sequence[int]) -> Tensor:
    """Rows [V, …], extended to ``num_rows``, with the rows of the new tokens initialised."""
    more = max(0, num_rows - rows.shape[0])
    mean = rows.float().mean(dim=0, keepdim=True).to(rows.dtype)
    extended = torch.cat([rows, mean.expand(more, *rows.shape[1:])])
    for token_id, part in zip(new_ids, parts, strict=True):
        extended[token_id] = rows[list(part)].float().mean(dim=0).to(rows.dtype)
    return extended


def _replace_saved(folder: Path, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Replace the configuration and the tokenizer, whose files may be links to those of another folder."""
    for file in folder.iterdir():
        if file.suffix == ".json" and not file.name.endswith(".index.json") and file.name != "generation_config.json":
            file.unlink()
    save_over(folder, config, tokenizer)
