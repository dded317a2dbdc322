"""Counts the bytes that a model's layers keep and move, by one run of the model on the meta device.

Autograd reports which tensors it keeps for the backward pass, and a dispatch mode sees the operands of every operation.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface

from sftkey_dist.errors import ModelError
from sftkey_dist.models.problem import loading_problem
from sftkey_dist.training.weights.lora import base_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "counted_attention"
_TOKENS = 64
_STACK = 3
"""Dimensions of a weight that stacks the matrices of experts."""
_IN_FLOPS = frozenset({"mm", "addmm", "bmm", "_grouped_mm", "grouped_mm_fallback", "grouped_mm_fallback_backward"})
"""Matrix products, including those of experts with the tokens that are routed to them."""
_MOVES_NOTHING = frozenset({"detach", "empty", "empty_like", "empty_strided", "_unsafe_view"})
_ONCE_A_ROW = frozenset({"embedding_dense_backward"})
"""Operations whose size does not depend on the tokens of a row: the gradient of the whole embedding table."""


@dataclass(frozen=True)
class LayerBytes:
    """Bytes per token, in all layers together.

    Attributes:
        kept: bytes that autograd keeps from the forward to the backward pass.
        held_weights: bytes of weights of which autograd keeps a view, a transposed stack of experts for example; they
            stay in memory until the backward pass although ZeRO-3 releases the parameter. In the whole model.
        moved: bytes that operations other than matrix products and attention read and write in both passes.
    """

    kept: float
    held_weights: float
    moved: float


def layer_bytes(model: "PreTrainedModel", *, without_once_a_row: bool = False) -> LayerBytes:
    """Run a model on the meta device and count.

    Args:
        model: a model on the meta device, with the attention of `register_counted_attention`.
        without_once_a_row: count what a longer row has more, and not what its layers do with their weights alone.

    Raises:
        ModelError: The model does not run on the meta device.
    """
    of_row = _row_bytes(model, _TOKENS)
    if not without_once_a_row:
        return LayerBytes(of_row.kept / _TOKENS, of_row.held_weights, of_row.moved / _TOKENS)
    of_longer = _row_bytes(model, 2 * _TOKENS)
    return LayerBytes(
        (of_longer.kept - of_row.kept) / _TOKENS, of_row.held_weights, (of_longer.moved - of_row.moved) / _TOKENS
    )


def _row_bytes(model: "PreTrainedModel", tokens: int) -> LayerBytes:
    """The same for all tokens of a row together."""
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    # Linear layers are excepted: DeepSpeed replaces their product by one that keeps the parameter itself.
    stacks = {weight.untyped_storage()._cdata for weight in model.parameters() if weight.dim() >= _STACK}
    kept: dict[int, torch.UntypedStorage] = {}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        if storage._cdata in stacks and not isinstance(tensor, torch.nn.Parameter):
            held[storage._cdata] = storage.nbytes()
        return tensor

    ids = torch.zeros(1, tokens, dtype=torch.int64, device="meta")
    positions = torch.arange(tokens, device="meta")[None]
    with MovedBytes() as moved, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        try:
            output = base_of(model)(
                input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False, logits_to_keep=1
            )
            # Counted while the graph keeps every storage alive, so that none has another's address.
            kept_bytes = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
            output.logits.sum().backward()
            model.zero_grad(set_to_none=True)  # the next count would add up gradients, whose size no row changes
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise ModelError(f"the model does not run on shapes alone: {loading_problem(error)}") from error
    return LayerBytes(kept_bytes, sum(held.values()), moved.total)


class MovedBytes(TorchDispatchMode):
    """Adds up the operands and results of operations that are limited by memory bandwidth.

    Attributes:
        total: number of bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Collection[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run the operation, and count the bytes of its tensors."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in _IN_FLOPS | _MOVES_NOTHING | _ONCE_A_ROW:
            return result
        touched = result if name == "embedding" else (args, kwargs, result)
        self.total += sum(_bytes(leaf) for leaf in tree_leaves(touched) if isinstance(leaf, Tensor))
        return result


def register_counted_attention() -> None:
    """Register an attention implementation that computes nothing, for models on the meta device."""
    AttentionInterface.register(ATTENTION, _counted_attention)


def _bytes(tensor: Tensor) -> int:
    """The bytes of a tensor; an expanded tensor has those of the tensor that it was expanded from."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


class _KeepsItsOperands(torch.autograd.Function):
    """Keeps what FlashAttention keeps: queries, keys, values, output and the logarithm of the softmax's denominator."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, tokens, _ = query.shape
        shape = (batch, tokens, heads, value.shape[-1])  # laid out as by kernels
        output = torch.empty(shape, dtype=query.dtype, device=query.device).transpose(1, 2)
        normaliser = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, output, normaliser)
        return output

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return tuple(torch.empty_like(operand) for operand in ctx.saved_tensors[:3])


def _counted_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: object
) -> tuple[Tensor, None]:
    output: Tensor = _KeepsItsOperands.apply(query, key, value)
    return output.transpose(1, 2).contiguous(), None
