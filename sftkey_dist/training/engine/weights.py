"""The weights of a stage's model in float32: what they start from, and the folders that are written of them."""

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.utils import CONFIG_NAME
from transformers.utils.logging import disable_progress_bar

from sftkey_dist.digests import FileNote
from sftkey_dist.errors import ModelError
from sftkey_dist.files import flush, folder_written_whole, remove_tree
from sftkey_dist.models.generation_config import greedy_until
from sftkey_dist.models.shape import shape_of
from sftkey_dist.run_dir.artifacts.training import Rounding
from sftkey_dist.training.engine.ranks import Ranks
from sftkey_dist.training.engine.whole_weights import Masters, WholeWeights
from sftkey_dist.training.weights.layout import MAX_FILE_BYTES, Layout, Part, lay_out
from sftkey_dist.training.weights.lora import base_of, exported_weights, is_second_matrix, save_adapter
from sftkey_dist.training.weights.masters import (
    MastersManifest,
    StoredWeights,
    commit_masters,
    turns_of,
    update_sums,
    write_masters,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MASTER_BYTES = 4


def _name_precision(file: Path, dtype: torch.dtype) -> None:
    """Correct the precision in a model's configuration.

    transformers writes the one that the model computes in. Whoever loads the folder would round weights of a higher
    one to it, the evaluation and servers among them.
    """

    def corrected(settings: dict[str, Any]) -> dict[str, Any]:
        return {
            key: corrected(value) if isinstance(value, dict) else name if key == "dtype" and value else value
            for key, value in settings.items()
        }

    name = str(dtype).removeprefix("torch.")
    settings = corrected(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class StageWeights:
    """Starts a stage from float32 weights and writes its model; every method is called on all ranks together."""

    def __init__(
        self, ranks: Ranks, model: "PreTrainedModel", masters: Masters, start: StoredWeights, precision: str
    ) -> None:
        """
        Args:
            ranks: of the engine.
            model: sharded, with its adapters if any.
            masters: of the model.
            start: weights that the stage starts from, which may be stored in a higher precision than the model's.
            precision: that the model computes in.
        """
        self._ranks, self._model, self._masters, self._start = ranks, base_of(model), masters, start
        self._adapted = model if self._model is not model else None
        self._rounded_by_loading = start.finer_than(precision)
        self._whole = WholeWeights(ranks, model, masters, start, self._rounded_by_loading)

    def start_from_masters(self) -> int:
        """Set the masters to what the stage starts from, which loading has rounded to the compute precision.

        Returns:
            Number of trained weights that the folder does not name as the model does, and that keep their rounding.

        Raises:
            ModelError: a row has no length that an adapter could train.
        """
        if lengths := self._whole.lengths_of_rows():
            self._masters.set_masters(lengths, lambda name, offset, size: _padded(lengths[name], offset, size))
        if not self._rounded_by_loading:
            return 0
        rounded = [name for name in self._masters.names if name in self._rounded_by_loading]
        self._masters.set_masters(rounded, self._start.range)
        return 0 if self._adapted is not None else sum(name not in self._start for name in self._masters.names)

    def require_known_start(self) -> None:
        """
        Raises:
            ModelError: the folder that the stage started from does not name the trained weights as the model does.
        """
        unknown = [name for name in self._masters.names if name not in self._start]
        if unknown and self._adapted is None:
            raise ModelError(
                f"interpolate: {len(unknown)} weights, such as {unknown[0]}, have another name in the folder that the "
                f"stage starts from than in the model, so that their start is not known; remove interpolate"
            )

    def scale_update(self, factor: float) -> None:
        """Set the masters to start + factor · (now - start), where the stage started and where it is now.

        Of an adapter, whose product is added to the weights, one matrix is scaled.
        """

        def scaled(name: str, offset: int, size: int) -> Tensor:
            now = self._masters.local(name)
            if self._adapted is not None:
                return now * factor
            return torch.lerp(self._start.range(name, offset, size).to(now.device), now, factor)

        names = [name for name in self._masters.names if self._adapted is None or is_second_matrix(name)]
        self._masters.set_masters(names, scaled)

    def generate_until(self, end_of_turn_id: int) -> tuple[str, ...]:
        """Have the exported model generate as it is evaluated; see `greedy_until`.

        Returns:
            The names of what is left out of the base model's generation configuration.
        """
        self._model.generation_config, left_out = greedy_until(end_of_turn_id, self._model.generation_config)
        return left_out

    def save_pretrained(
        self, folder: Path, dtype: torch.dtype, *, with_weights: bool = True, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        """Write the model as a Hugging Face folder, whose files of weights all ranks write side by side.

        No rank holds more than one file's weights in memory, beside the weight that is being gathered.

        Args:
            folder: where to write; rank 0 has made it.
            dtype: precision that the masters are rounded to.
            with_weights: whether to write the parameters, and not only what else there is.
            max_file_bytes: most bytes of weights in a file, unless a single weight has more.

        Raises:
            TrainingError: a rank could not write; all ranks raise it.
        """
        layout = self._layout(dtype, max_file_bytes)
        if self._ranks.rank == 0:
            disable_progress_bar()  # it would say that no weights are written
            self._model.save_pretrained(folder, state_dict={})  # its configuration and code
            _name_precision(folder / CONFIG_NAME, dtype)
        self._ranks.wait_for_first_rank()
        if with_weights:
            self._write_parts(layout, folder, dtype)

    def save_masters(self, folder: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        """Write the float32 masters of every weight that is exported, each from one rank.

        Raises:
            TrainingError: a rank could not write; all ranks raise it.
        """
        if self._ranks.rank == 0:
            remove_tree(folder)  # of an end that was interrupted before it was recorded
        self._ranks.wait_for_first_rank()
        owners, notes = self._whole.owners(), dict[str, FileNote]()
        owned = {name for name, rank in owners.items() if rank == self._ranks.rank}
        for turn, names in enumerate(turns_of(owners, self._whole.sizes(), max_file_bytes // _MASTER_BYTES)):
            mine = {name: master.cpu().clone() for name, master in self._whole.masters_of(names, owned)}
            with self._ranks.store_collectives.together("the master weights"):
                notes |= write_masters(folder, self._ranks.rank, turn, mine)
            del mine  # before the next weights are gathered
        parts = self._ranks.store_collectives.gather(MastersManifest(files=notes).model_dump_json())
        if self._ranks.rank == 0:
            commit_masters(folder, parts)
        self._ranks.wait_for_first_rank()

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter that was trained in float32, from rank 0, as a folder of peft; nothing without one."""
        if self._adapted is None:
            return
        matrices = dict[str, Tensor]()
        for name, weight in self._adapted.named_parameters():
            if weight.requires_grad:
                whole = self._masters.whole(weight)
                if self._ranks.rank == 0:
                    matrices[name] = whole.cpu()
        if self._ranks.rank == 0:
            remove_tree(folder)  # of an end that was interrupted before it was recorded
            with folder_written_whole(folder) as scratch:
                save_adapter(self._adapted, matrices, scratch)
        self._ranks.wait_for_first_rank()

    def compare_with_start(self, stored_dtype: torch.dtype) -> Rounding:
        """What the stage has changed so far, in its masters and in their rounding to the stored precision."""
        owners, sums = self._whole.owners(), torch.zeros(4, dtype=torch.float64)
        mine = {name for name, rank in owners.items() if rank == self._ranks.rank and name in self._start}
        for name, master in self._whole.masters_of(owners.keys(), mine):
            sums += update_sums(self._start.whole(name), master, stored_dtype)
        return Rounding.of_sums(str(stored_dtype).removeprefix("torch."), self._ranks.all_reduce_sum(sums).tolist())

    def close(self) -> None:
        """Close the files that the stage started from."""
        self._start.close()

    def _layout(self, dtype: torch.dtype, max_file_bytes: int) -> Layout:
        """The files of the exported model, the same on all ranks."""
        shapes = {weight.name: shape_of(weight.parameter) for weight in exported_weights(self._model)}
        parameters = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
        layout = lay_out(self._model, parameters, self._buffers(), max_file_bytes)
        if len(set(self._ranks.gather_to_all(layout.digest))) > 1:
            raise AssertionError("ranks spread the weights over files differently")
        return layout

    def _write_parts(self, layout: Layout, folder: Path, dtype: torch.dtype) -> None:
        """Fill as many parts as there are ranks and write them at the same time, until all are written."""
        rank, world_size = self._ranks.rank, self._ranks.world_size
        written: list[Path] = []
        for first in range(0, len(layout.parts), world_size):
            parts = layout.parts[first : first + world_size]
            # Fewer parts than ranks are spread over all ranks, and so over the nodes.
            mine = {number * world_size // len(parts): part for number, part in enumerate(parts)}.get(rank)
            kept = self._filled(mine, {name for part in parts for name in part.weights}, dtype)
            with self._ranks.store_collectives.together("the model's weights"):
                if mine is not None:
                    mine.write(folder, self._model, kept)
                    written += [folder / file for file in mine.files]
            del kept  # before the next parts are filled
        with self._ranks.store_collectives.together("the model's weights"):
            for file in written:  # only now: until then the kernel writes beside what is gathered
                flush(file)
        if rank == 0:
            layout.write_index(folder)

    def _filled(self, mine: Part | None, gathered: set[str], dtype: torch.dtype) -> dict[str, Tensor]:
        """What this rank's part keeps of the weights that all ranks gather together."""
        kept: dict[str, Tensor] = {}
        wanted = frozenset(mine.weights if mine is not None else ())
        buffers = ((name, value) for name, value in self._buffers().items() if name in wanted)
        masters = ((name, master.to(dtype)) for name, master in self._whole.masters_of(gathered, wanted))
        for name, value in chain(masters, buffers):
            if mine is not None:
                kept |= mine.tensors_of(self._model, name, value.cpu())
        return kept

    def _buffers(self) -> dict[str, Tensor]:
        """Buffers that are stored with the model."""
        persistent = set(self._model.state_dict().keys())
        buffers = {name: value for name, value in self._model.named_buffers() if name in persistent}
        untied: dict[str, Tensor] = remove_tied_weights_from_state_dict(buffers, self._model)
        return untied


def _padded(values: Tensor, offset: int, size: int) -> Tensor:
    """[size]: elements offset..offset+size, zeros past their end."""
    part = values[offset : offset + size]
    return torch.nn.functional.pad(part, (0, size - len(part)))
