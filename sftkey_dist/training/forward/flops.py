"""Model FLOPs: what the mathematics of a step needs, whatever is gathered, recomputed or padded on the way.

Every formula for FLOPs stands here. Those of the accelerator are model FLOPs and what `ModelFlops.recomputed` adds.

Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B) is their rate over the accelerators' dense peak.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sftkey_dist.errors import ModelError
from sftkey_dist.models.shape import (
    active_share,
    attention_dims_of,
    attention_window_of,
    decoder_layers,
    is_of_experts,
    shape_of,
)
from sftkey_dist.sampler import AttentionWindow, mean_attended_pairs
from sftkey_dist.training.weights.lora import is_second_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Numbers = float | np.ndarray
_MATRIX = 2
PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
}
"""Dense bfloat16 products, float32 accumulation, from NVIDIA's data sheets; the first name that fits counts."""


@dataclass(frozen=True)
class Positions:
    """Counts that the cost of a pass depends on; numbers, or arrays of one shape.

    Attributes:
        tokens: in all examples.
        pairs: Σ L² over the examples: causal attention looks at half of them. Where layers have a window, the mean
            over all layers of what this is in each.
        logits: positions with logits.
    """

    tokens: Numbers
    pairs: Numbers
    logits: Numbers

    def without_prefix(self, prefix: "Positions") -> "Positions":
        """Without the queries of what stands before; its keys are looked at all the same."""
        return Positions(self.tokens - prefix.tokens, self.pairs - prefix.pairs, self.logits)


@dataclass(frozen=True)
class Work:
    """FLOPs by the unit that they run on; numbers, or arrays of one shape.

    Attributes:
        products: of matrix products with weights.
        attention: of queries with keys, and of the weights of that with values.
    """

    products: Numbers
    attention: Numbers

    @property
    def total(self) -> Numbers:
        """Both."""
        return self.products + self.attention

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.attention + other.attention)


@dataclass(frozen=True)
class ModelFlops:
    """Sizes that the FLOPs of a decoder follow from.

    Attributes:
        layer_weights: weights of the matrices that a token passes, all layers together; of a mixture of experts those
            that it is routed to.
        attention_width: layers x query heads x head dimension, the mean of that of keys and that of values.
        logit_weights: hidden size x vocabulary, passed where there is a loss.
        layer_gradients: of the layers, products of the backward pass: a weight counts once where it is trained, and
            once where what it is applied to needs a gradient.
        logit_gradients: the same of the output projection.
        window: of the layers in which a query does not see all tokens before it; None if there are none.
    """

    layer_weights: float
    attention_width: int
    logit_weights: int
    layer_gradients: float
    logit_gradients: int
    window: AttentionWindow | None = None

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "ModelFlops":
        """Count for a decoder: whole, on the meta device or partitioned, with adapters or without."""
        text = model.config.get_text_config()
        heads = int(text.num_hidden_layers) * int(text.num_attention_heads)
        logit_weights = int(text.hidden_size) * int(text.vocab_size)
        matrices = list(_matrices_of_layers(model, text))
        starts = _without_gradient_to_pass_on(model)
        return cls(
            layer_weights=sum(active for _, active in matrices),
            attention_width=heads * sum(attention_dims_of(text)) // 2,
            logit_weights=logit_weights,
            layer_gradients=sum(
                active * (weight.requires_grad + (id(weight) not in starts)) for weight, active in matrices
            ),
            logit_gradients=logit_weights * (1 + model.get_output_embeddings().weight.requires_grad),
            window=attention_window_of(text),
        )

    def positions(self, lengths: np.ndarray, num_logits: int) -> Positions:
        """Count for examples of these lengths, int [N], with logits at ``num_logits`` of their positions."""
        pairs = mean_attended_pairs(lengths, self.window)
        return Positions(float(lengths.sum()), float(pairs.sum()), num_logits)

    def forward(self, on: Positions) -> Work:
        """A weight takes 2 FLOPs a token; causal attention looks at half of the pairs, 4 FLOPs a pair and dimension."""
        return self._layers(on) + self._logits(on)

    def backward(self, on: Positions) -> Work:
        """Gradients of trained weights and of what weights are applied to; of attention twice the forward pass."""
        products = 2 * (self.layer_gradients * on.tokens + self.logit_gradients * on.logits)
        return Work(products, 4 * self.attention_width * on.pairs)

    def recomputed(self, on: Positions, *, layers: bool, logits: bool) -> Work:
        """What the accelerator computes once more in the backward pass, and the mathematics does not need."""
        again = Work(0.0, 0.0)
        if layers:
            again += self._layers(on)
        return again + self._logits(on) if logits else again

    def of_weights(self, share: float, on: Positions) -> Work:
        """One more application of a share of the layers' weights to every token."""
        return Work(2 * share * self.layer_weights * on.tokens, 0.0)

    def of_step(self, lengths: np.ndarray, num_logits: int, prefixes: np.ndarray | None = None) -> float:
        """Model FLOPs of forward and backward.

        Args:
            lengths: of the step's examples, int [N].
            num_logits: positions with logits.
            prefixes: tokens of each example that no gradient passes through, int [N]; None for none.
        """
        whole = self.positions(lengths, num_logits)
        rest = whole if prefixes is None else whole.without_prefix(self.positions(prefixes, 0))
        return float((self.forward(whole) + self.backward(rest)).total)

    def _layers(self, on: Positions) -> Work:
        return Work(2 * self.layer_weights * on.tokens, 2 * self.attention_width * on.pairs)

    def _logits(self, on: Positions) -> Work:
        return Work(2.0 * self.logit_weights * on.logits, 0.0)


def prefix_tokens(segment_counts: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Tokens before the position that predicts an example's first target, int [N]: what a stopped prefix spans.

    Args:
        segment_counts: tokens of each segment in each example, int [N, S]: the prompt, the end of turn, and then the
            others in the order of the response.
        weights: loss weight of each segment, [S].
    """
    in_order = np.r_[0, 2 : len(weights), 1]
    counts = np.asarray(segment_counts)[:, in_order].astype(np.int64)
    is_target = (counts > 0) & (np.asarray(weights)[in_order] > 0)
    before = counts.cumsum(axis=1) - counts
    first = before[np.arange(len(counts)), is_target.argmax(axis=1)]
    found: np.ndarray = np.where(is_target.any(axis=1), first - 1, counts.sum(axis=1))
    return found


def _matrices_of_layers(
    model: "PreTrainedModel", text: "PreTrainedConfig"
) -> Iterator[tuple[torch.nn.Parameter, float]]:
    """Every matrix that a token is multiplied with on its way to the output projection, and its active weights."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    outside = tables | {id(model.get_output_embeddings().weight)}
    for name, weight in model.named_parameters():
        shape = shape_of(weight)
        if id(weight) not in outside and len(shape) >= _MATRIX:
            is_routed = is_of_experts(name, shape, text)
            yield weight, math.prod(shape) * (active_share(text) if is_routed else 1)


def _without_gradient_to_pass_on(model: "PreTrainedModel") -> set[int]:
    """Matrices whose input no gradient is needed of: nothing before them is trained.

    Beside adapters the embedding is frozen, and the first layer's products with it have a gradient for adapters alone.
    Of a layer's blocks, all modules but the last are applied to the block's input.
    """
    if model.get_input_embeddings().weight.requires_grad:
        return set()
    found: set[int] = set()
    with suppress(ModelError):  # an architecture without one list of layers
        for modules in _in_order_of_use(decoder_layers(model)[0]):
            weights = [item for module in modules for item in module.named_parameters()]
            found |= {id(weight) for name, weight in weights if not is_second_matrix(name)}
            if any(weight.requires_grad for _, weight in weights):
                break
    return found


def _in_order_of_use(layer: torch.nn.Module) -> Iterator[list[torch.nn.Module]]:
    """Modules that are applied to the same: those of a block but its last, and then that one."""
    for block in layer.children():
        *first, last = [module for module in block.children() if _has_matrices(module)] or [block]
        yield first
        yield [last]


def _has_matrices(module: torch.nn.Module) -> bool:
    return any(len(shape_of(weight)) >= _MATRIX for weight in module.parameters())


def peak_flops_per_second(device: torch.device, precision: str) -> float | None:
    """Dense peak of one accelerator in this precision; None where it is not known."""
    if device.type != "cuda" or precision != "bfloat16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tflops * 1e12 for known, tflops in PEAK_TFLOPS.items() if known in name), None)
