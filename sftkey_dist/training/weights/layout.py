"""How a model's weights are spread over the files of its folder, decided before any of them is there.

Files have the names, the sizes and the index that transformers gives them. Some architectures are stored otherwise than
they are computed with, mixtures of experts with a matrix per expert; transformers reverts what it has converted. Where
that takes one weight at a time, so do we. Where stored tensors are made of several weights, all files are one part.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from sftkey_dist.digests import digest_json
from sftkey_dist.errors import TrainingError
from sftkey_dist.files import apply_umask, write_text_atomically
from sftkey_dist.models.weight_files import INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_FILE_BYTES = 5 * 10**9
"""Most bytes of weights in a file, unless a single tensor has more."""
_FILES = "model{suffix}.safetensors"


@dataclass(frozen=True)
class Part:
    """Files that one rank writes.

    Attributes:
        files: the names of the tensors in each file, by its name.
        weights: names of the model's weights that the tensors are made of.
        is_joint: whether a tensor may be made of several weights.
    """

    files: Mapping[str, tuple[str, ...]]
    weights: tuple[str, ...]
    is_joint: bool

    def tensors_of(self, model: "PreTrainedModel", name: str, weight: Tensor) -> dict[str, Tensor]:
        """What is kept of a weight until the files are written, in memory of its own."""
        if self.is_joint:
            return {name: _copy(weight)}
        mine = {tensor for tensors in self.files.values() for tensor in tensors}
        return {key: _copy(value) for key, value in _stored(model, {name: weight}).items() if key in mine}

    def write(self, folder: Path, model: "PreTrainedModel", kept: Mapping[str, Tensor]) -> None:
        """Write the files, which are on disk only once they are flushed.

        Args:
            folder: exists already.
            model: that the weights belong to.
            kept: `tensors_of` all of the weights.

        Raises:
            TrainingError: this process does not see the folder.
        """
        if not folder.is_dir():
            raise TrainingError(f"{folder} is not there; run_dir must lie on storage that all nodes share")
        tensors = _stored(model, kept) if self.is_joint else kept
        for file, names in self.files.items():
            values = {name: tensors[name].contiguous() for name in names}
            save_file(values, folder / file, metadata={"format": "pt"})
            apply_umask(folder / file)


@dataclass(frozen=True)
class Layout:
    """The files of a folder.

    Attributes:
        parts: of the weights.
        total_bytes: of all tensors.
        total_parameters: number of parameters of the model.
    """

    parts: tuple[Part, ...]
    total_bytes: int
    total_parameters: int

    @property
    def digest(self) -> str:
        """The same for equal layouts."""
        return digest_json(asdict(self))

    def write_index(self, folder: Path) -> None:
        """Write which tensor is in which file, unless all are in one."""
        files = {file: names for part in self.parts for file, names in part.files.items()}
        if len(files) > 1:
            sizes = {"total_parameters": self.total_parameters, "total_size": self.total_bytes}
            places = {name: file for file, names in files.items() for name in names}
            index = {"metadata": sizes, "weight_map": places}
            write_text_atomically(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def lay_out(
    model: "PreTrainedModel", parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], max_file_bytes: int
) -> Layout:
    """Spread a model's weights over files.

    Args:
        model: that the weights belong to.
        parameters: of the model, in its order; only their shapes and dtypes are read.
        buffers: that are stored beside them.
        max_file_bytes: most bytes of tensors in a file, unless a single one has more.
    """
    ignored = set(model._keys_to_ignore_on_save or ())
    weights = {name: _shape(value) for name, value in {**parameters, **buffers}.items() if name not in ignored}
    stored = {name: _shape(value) for name, value in _stored(model, weights).items()}
    split = split_torch_state_dict_into_shards(stored, filename_pattern=_FILES, max_shard_size=max_file_bytes)
    files = {file: tuple(names) for file, names in split.filename_to_tensors.items()}
    made_of = _single_weights(model, weights, stored)
    parts = (
        [Part(files, tuple(weights), is_joint=True)]
        if made_of is None
        else [
            Part({file: names}, tuple(dict.fromkeys(made_of[name] for name in names)), is_joint=False)
            for file, names in files.items()
        ]
    )
    return Layout(tuple(parts), int(split.metadata["total_size"]), sum(value.numel() for value in parameters.values()))


def _single_weights(
    model: "PreTrainedModel", weights: Mapping[str, Tensor], stored: Mapping[str, Tensor]
) -> dict[str, str] | None:
    """The weight that each stored tensor is made of; None where one is made of several weights."""
    made_of: dict[str, str] = {}
    for name, weight in weights.items():
        try:
            alone = _stored(model, {name: weight})
        except Exception:  # whatever a conversion raises that lacks its other weights
            return None
        if any(key in made_of or key not in stored or stored[key].shape != v.shape for key, v in alone.items()):
            return None
        made_of |= dict.fromkeys(alone, name)
    return made_of if made_of.keys() == stored.keys() else None


def _stored(model: "PreTrainedModel", weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are stored, under the names that they have in files."""
    tensors: dict[str, Tensor] = revert_weight_conversion(model, dict(weights))
    return tensors


def _shape(value: Tensor) -> Tensor:
    """A tensor without values, whose storage has its size even if it is a part of another's."""
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def _copy(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format)
