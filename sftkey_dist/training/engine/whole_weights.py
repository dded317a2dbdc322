"""The weights of a sharded model as they are exported: gathered whole, in float32, with their adapters merged."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sftkey_dist.errors import ModelError
from sftkey_dist.models.shape import shape_of
from sftkey_dist.training.engine.ranks import Ranks
from sftkey_dist.training.weights.lora import ExportedWeight, base_of, exported_weights
from sftkey_dist.training.weights.masters import StoredWeights, owners_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Masters(Protocol):
    """The float32 masters of a sharded model; every method is called on all ranks together."""

    @property
    def names(self) -> Iterable[str]:
        """Names of the trained parameters, which alone have a master."""
        ...

    def set_masters(self, names: Iterable[str], range_of: Callable[[str, int, int], Tensor]) -> None:
        """Set masters, and the weights that are computed with to their rounding.

        Args:
            names: of the parameters.
            range_of: called with (parameter name, offset, number of elements); elements past the end of the parameter
                are padding.
        """
        ...

    def local(self, name: str) -> Tensor:
        """This rank's slice of a master, flat."""
        ...

    def whole(self, parameter: torch.nn.Parameter) -> Tensor:
        """A parameter in float32 on all ranks; a frozen one, which has no master, as it is computed with."""
        ...


class WholeWeights:
    """Gathers whole weights; every method is called on all ranks together."""

    def __init__(
        self,
        ranks: Ranks,
        model: "PreTrainedModel | PeftModel",
        masters: Masters,
        start: StoredWeights,
        finer: Collection[str],
    ) -> None:
        """
        Args:
            ranks: of the engine.
            model: sharded, with its adapters if any.
            masters: of the model.
            start: weights that the stage started from.
            finer: names of those among them that loading has rounded to the compute precision.
        """
        self._ranks, self._model, self._masters = ranks, model, masters
        self._start, self._finer = start, finer

    def owners(self) -> dict[str, int]:
        """The rank that writes each weight."""
        return owners_of(self.sizes(), self._ranks.world_size)

    def sizes(self) -> dict[str, int]:
        """Elements of each weight."""
        return {weight.name: math.prod(shape_of(weight.parameter)) for weight in self._exported()}

    def masters_of(self, gathered: Collection[str], wanted: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """Whole masters by name, one at a time: of the weights that all ranks gather together, those wanted here."""
        for weight in self._exported():
            if weight.name in gathered:
                master = self._with_adapter(weight, is_wanted=weight.name in wanted)
                if master is not None:
                    yield weight.name, master

    def lengths_of_rows(self) -> dict[str, Tensor]:
        """Lengths of the rows of the weights that have decomposed adapters, by the names of the trained lengths.

        peft takes them of weights that are rounded to the compute precision, and rounds the lengths too: merged into
        the float32 weights, an adapter with those would change them before it is trained.

        Raises:
            ModelError: a row has no length.
        """
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        owners, found = self.owners(), dict[str, Tensor]()
        for weight in self._exported():
            if weight.lengths is not None:
                whole = self._without_adapter(weight, is_wanted=owners[weight.name] == self._ranks.rank)
                mine = torch.zeros(shape_of(weight.lengths)) if whole is None else weight.row_lengths(whole)
                lengths = self._ranks.all_reduce_sum(mine)
                _require_lengths(weight.name, lengths)
                found[names[id(weight.lengths)]] = lengths
        return found

    def _exported(self) -> Iterator[ExportedWeight]:
        return exported_weights(base_of(self._model))

    def _with_adapter(self, weight: ExportedWeight, *, is_wanted: bool) -> Tensor | None:
        """A whole weight in float32, with its adapter merged; called on all ranks, returned where it is wanted."""
        whole = self._without_adapter(weight, is_wanted=is_wanted)
        parts = [self._masters.whole(part) for part in weight.parts]
        return None if whole is None else weight.merged(whole, *parts)

    def _without_adapter(self, weight: ExportedWeight, *, is_wanted: bool) -> Tensor | None:
        """A whole weight in float32 beside its adapter; called on all ranks, returned where it is wanted.

        A frozen weight has no master; where the folder that the stage started from holds it in a higher precision, it
        is taken from there.
        """
        whole = self._masters.whole(weight.parameter)
        if not is_wanted:
            return None
        if not weight.parameter.requires_grad and weight.name in self._finer:
            return self._start.whole(weight.name).to(whole.device)
        return whole


def _require_lengths(name: str, lengths: Tensor) -> None:
    """An adapter that is divided by a length of 0 computes no numbers."""
    if zeros := int((lengths == 0).sum()):
        raise ModelError(
            f"training.lora.weight_decomposed: {zeros} rows of {name} are all zeros and have no direction; set it to "
            f"false, or name other layers in training.lora.target_modules"
        )
