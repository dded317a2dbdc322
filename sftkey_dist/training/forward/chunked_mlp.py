"""Feed-forward blocks that compute a chunk of tokens at a time, and once more in the backward pass.

Between its two products, a block holds several tensors that are three to four times as wide as the model. Of a long row
they take more memory than the rest of a layer. Here only those of a chunk exist at a time.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sftkey_dist.errors import ModelError
from sftkey_dist.models.shape import decoder_layers, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK = "mlp"
"""Name of the feed-forward block in the layers of nearly all decoders of transformers."""


def compute_mlps_in_chunks(model: "PreTrainedModel", chunk_tokens: int) -> float:
    """Have the feed-forward block of every layer compute so many tokens at a time.

    Its weights must not be gathered and released by hooks of the block's own modules: ranks with rows of other lengths
    have another number of chunks.

    Returns:
        The share of the layers' weights that these blocks hold.

    Raises:
        ModelError: the layers have no such block.
    """
    layers, in_blocks = decoder_layers(model), 0
    for layer in layers:
        block = getattr(layer, _BLOCK, None)
        if not isinstance(block, torch.nn.Module):
            raise ModelError(f"{type(layer).__name__} has no block named {_BLOCK}; set training.mlp_chunk_tokens=null")
        block.forward = partial(_in_chunks, block.forward, chunk_tokens)
        in_blocks += _num_weights(block)
    return in_blocks / _num_weights(layers)


def _num_weights(module: torch.nn.Module) -> int:
    return sum(math.prod(shape_of(weight)) for weight in module.parameters())


def _in_chunks(forward: Callable[[Tensor], Tensor], chunk_tokens: int, hidden: Tensor) -> Tensor:
    """[1, T, D] from [1, T, D]."""
    found = [checkpoint(forward, part, use_reentrant=False) for part in hidden.split(chunk_tokens, dim=1)]
    if not all(isinstance(part, Tensor) for part in found):
        raise ModelError(
            "this model's feed-forward blocks return more than a tensor; set training.mlp_chunk_tokens=null"
        )
    return torch.cat(found, dim=1)
