"""Model FLOPs: what the mathematics of a step needs, whatever is gathered, recomputed or padded on the way.

Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B) is their rate over the accelerators' dense peak.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sftkey_dist.models.shape import head_dim_of

_FORWARD_AND_BACKWARD = 3
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


def passes_of_a_step(*, stops_prefix: bool, is_frozen: bool) -> int:
    """A step's work in forward passes.

    The backward pass takes two, for the gradients of weights and of what they are applied to; one where the weights are
    frozen, and next to nothing behind a stopped prefix.
    """
    if stops_prefix:
        return 1
    return 2 if is_frozen else _FORWARD_AND_BACKWARD


@dataclass(frozen=True)
class ModelFlops:
    """Sizes that the FLOPs of a dense decoder follow from.

    Attributes:
        layer_weights: weights of the matrices that every token passes, all layers together.
        attention_width: layers x query heads x head dimension.
        logit_weights: hidden size x vocabulary, passed where there is a loss.
    """

    layer_weights: int
    attention_width: int
    logit_weights: int

    @classmethod
    def of(cls, config: Any, layer_weights: int) -> "ModelFlops":
        """Of a decoder with this configuration."""
        text = config.get_text_config()
        return cls(
            layer_weights,
            int(text.num_hidden_layers) * int(text.num_attention_heads) * head_dim_of(text),
            int(text.hidden_size) * int(text.vocab_size),
        )

    def of_step(self, lengths: np.ndarray, num_logits: int) -> float:
        """`of_pass` for forward and backward."""
        return _FORWARD_AND_BACKWARD * self.of_pass(lengths, num_logits)

    def of_pass(self, lengths: np.ndarray, num_logits: int) -> float:
        """Forward of examples of these lengths, logits at ``num_logits`` positions.

        A weight takes 2 FLOPs a token; causal attention looks at half of L² pairs, 4 FLOPs a pair and dimension.
        """
        tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
        halves = self.layer_weights * tokens + self.attention_width * pairs + self.logit_weights * num_logits
        return 2 * halves


def peak_flops_per_second(device: torch.device, precision: str) -> float | None:
    """Of one accelerator; None where it is not known."""
    if device.type != "cuda" or precision != "bfloat16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tflops * 1e12 for known, tflops in PEAK_TFLOPS.items() if known in name), None)
