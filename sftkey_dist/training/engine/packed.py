"""Calling a causal language model on packed rows."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftkey_dist.config.model import Attention
from sftkey_dist.errors import ModelError
from sftkey_dist.training.forward.attention import PrefixCache
from sftkey_dist.training.forward.collate import PackedRow, dummy_row, split_before_targets
from sftkey_dist.training.forward.head import ChunkedHead, OfLogits
from sftkey_dist.training.forward.loss import most_likely, token_losses
from sftkey_dist.training.forward.router import choice_counts, probabilities
from sftkey_dist.training.forward.sequence_group import SequenceGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedModel:
    """A model that takes packed rows; every method is called on all ranks together.

    Shapes: K is the number of kept positions of a row, V the size of the vocabulary.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        attention: Attention,
        head: ChunkedHead | None,
        sequence_group: SequenceGroup | None = None,
        *,
        with_entropy: bool = False,
    ) -> None:
        """
        Args:
            model: in training mode; called as transformers' models are.
            attention: says how the model is told where examples end.
            head: its output projection, where losses are computed inside it.
            sequence_group: the ranks that hold the other parts of a row that is a part.
            with_entropy: see `token_losses`.
        """
        self._model, self._attention, self._head, self._with_entropy = model, attention, head, with_entropy
        self._sequence_group = sequence_group
        self._head_comes_last = False

    def losses(self, row: PackedRow) -> Tensor:
        """`token_losses` [K, 2 to 4] at the kept positions."""
        return self._losses(row, **self._boundaries(row))

    def losses_with_router(self, row: PackedRow) -> tuple[Tensor, Tensor]:
        """`losses`, and the routers' `probabilities` [E] for the row's tokens, with gradients."""
        router_logits: list[Tensor] = []
        losses = self._losses(row, **self._boundaries(row), router_logits=router_logits)
        return losses, probabilities(router_logits, row.num_tokens)

    def router_choices(self, row: PackedRow, chosen: int) -> Tensor:
        """`choice_counts` [E] of the row's tokens, in evaluation mode, without gradients."""

        def count(row: PackedRow, **boundaries: Any) -> Tensor:
            router_logits: list[Tensor] = []
            one_position = replace(row, kept_positions=row.kept_positions[:1])  # no logits of a whole row
            self._call(one_position, **boundaries, router_logits=router_logits)
            return choice_counts(router_logits, row.num_tokens, chosen)

        return self._evaluated(count, row)

    def losses_with_stopped_prefix(self, row: PackedRow) -> Tensor:
        """`losses`, with no gradient through what comes before each example's first kept position.

        Another objective than the exact one: keys and values of the prompt and the reasoning count as given. The
        backward pass then runs over the answers alone. Every rank calls the model twice, whatever its row holds.
        """
        prefix, rest = split_before_targets(row)
        called, memory = prefix or dummy_row().to(row.input_ids.device), PrefixCache()
        with torch.no_grad():
            self._call(called, example_lengths=called.example_lengths, write_cache=memory)
        read_cache = {"read_cache": memory} if prefix is not None else {}
        return self._losses(rest, example_lengths=rest.example_lengths, **read_cache)

    def losses_without_dropout(self, row: PackedRow) -> Tensor:
        """`losses` in evaluation mode, without gradients."""
        return self._evaluated(self._losses, row)

    def predictions_without_dropout(self, row: PackedRow, number: int) -> Tensor:
        """`most_likely` at the kept positions, in evaluation mode, without gradients."""

        def compute(logits: Tensor, kept: slice) -> Tensor:
            return most_likely(logits, number)

        return self._evaluated(partial(self._of_logits, compute), row)

    def logits_without_dropout(self, row: PackedRow) -> Tensor:
        """Logits [K, V] at the kept positions, all at once, in evaluation mode, without gradients."""
        return self._evaluated(self._call, row)

    @torch.no_grad()
    def _evaluated(self, forward: Callable[..., Tensor], row: PackedRow) -> Tensor:
        self._model.eval()
        result = forward(row, **self._boundaries(row))
        self._model.train()
        return result

    def _losses(self, row: PackedRow, **boundaries: Any) -> Tensor:
        def compute(logits: Tensor, kept: slice) -> Tensor:
            start = (row.anchor.ids[kept], row.anchor.log_probabilities[kept]) if row.anchor else None
            return token_losses(logits, row.targets[kept], with_entropy=self._with_entropy, start=start)

        return self._of_logits(compute, row, **boundaries)

    def _of_logits(self, compute: OfLogits, row: PackedRow, **boundaries: Any) -> Tensor:
        """What is computed from the logits at the kept positions, [K, C]."""
        if self._head is None:
            return compute(self._call(row, **boundaries), slice(None))
        with self._head.computing(compute) as head:
            returned = self._call(row, **boundaries)
        if not self._head_comes_last:  # once, because the comparison waits for the device
            _assert_same(returned.detach(), head.computed[0])
            self._head_comes_last = True
        return returned

    def _call(self, row: PackedRow, router_logits: list[Tensor] | None = None, **boundaries: Any) -> Tensor:
        """The one place that calls the model; the logits of its routers are added to the list, if there is one.

        Without ``use_cache=False`` and with any mask, examples of a row would see each other.
        """
        if router_logits is not None:
            boundaries["output_router_logits"] = True
        output = self._model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=row.kept_positions,
            **boundaries,
        )
        if router_logits is not None:
            # A model that computes no such loss has no routers, or balances them otherwise.
            if getattr(output, "aux_loss", None) is None:
                raise ModelError("this model has no loss that balances routers; set optimization.router_loss_weight=0")
            router_logits += output.router_logits
        logits: Tensor = output.logits[0]
        return logits

    def _boundaries(self, row: PackedRow) -> dict[str, Any]:
        """Where examples end, in the arguments that the attention takes, and who holds the other parts of the row."""
        if row.is_part:
            return self._ends(row) | {"sequence_group": self._sequence_group}
        return self._ends(row)

    def _ends(self, row: PackedRow) -> dict[str, Any]:
        match self._attention:
            case "packed":
                return {"example_lengths": row.example_lengths, "cu_seq_lens": row.cu_seq_lens}
            case "packed_sdpa":
                return {"example_lengths": row.example_lengths}
            case "flash_attention_2":
                # Without these FlashAttention derives them from position ids and waits for the device in every layer.
                longest = max(row.example_lengths)
                return {
                    "cu_seq_lens_q": row.cu_seq_lens,
                    "cu_seq_lens_k": row.cu_seq_lens,
                    "max_length_q": longest,
                    "max_length_k": longest,
                }
            case "sdpa":
                return {}


def _assert_same(returned: Tensor, computed: Tensor) -> None:
    """Check that a model returns what its output projection has computed. Some models bound or scale logits after it.

    Raises:
        ModelError: They differ.
    """
    if not torch.equal(returned, computed):
        raise ModelError(
            "this model changes its logits after the output projection, so that losses cannot be computed inside it; "
            "set training.logit_chunk_positions=null"
        )
