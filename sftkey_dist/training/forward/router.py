"""The loss that balances the routers of a mixture of experts, over all tokens of an optimizer step.

With E experts, of which a router chooses k for each token,

    L = E · Σ_e f_e · P_e

where f_e is how often expert e was chosen and P_e its mean probability, both over all tokens and layers (Switch
Transformers, arXiv:2101.03961, as ``load_balancing_loss_func`` of transformers computes it). It is a product of means,
so that the mean of its values over micro-batches is another number, which depends on how examples are packed. Here both
means are over the whole step, on all ranks. f has no gradient; it is counted in a forward pass before those of the
step, and every micro-batch then adds its share of Σ f_e · P_e.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sftkey_dist.errors import ModelError

_CORRECTION = "e_score_correction_bias"
"""Name that transformers gives what is added before experts are chosen (DeepSeek-V3, GLM-4, Ernie 4.5)."""


@dataclass(frozen=True)
class RouterBalance:
    """How the tokens of a step are routed.

    Attributes:
        shares: f, float32 [E].
        num_routed: number of tokens times layers.
    """

    shares: Tensor
    num_routed: float

    @classmethod
    def of(cls, counts: Tensor, chosen: int) -> "RouterBalance":
        """From how often each expert was chosen, [E], of which ``chosen`` are for each token."""
        num_routed = float(counts.sum()) / chosen
        return cls((counts / num_routed).float(), num_routed)

    def loss(self, probabilities: Tensor) -> Tensor:
        """The part of the loss that some tokens add, from the `probabilities` of theirs; scalar with gradient."""
        shares = self.shares.to(probabilities.device)
        return len(shares) * (shares * probabilities).sum() / self.num_routed


def require_known_routers(model: torch.nn.Module) -> None:
    """Check that routers choose by the probabilities that the loss is made of.

    Raises:
        ModelError: they choose by something else, such as probabilities with a correction.
    """
    names = (name for name, _ in (*model.named_parameters(), *model.named_buffers()))
    corrections = [name for name in names if name.rpartition(".")[2] == _CORRECTION]
    if corrections:
        raise ModelError(
            f"the routers of this model choose with a correction ({corrections[0]}), which balances them already; set "
            f"optimization.router_loss_weight=0"
        )


def choice_counts(router_logits: Sequence[Tensor], num_tokens: int, chosen: int) -> Tensor:
    """How often each expert is chosen for the first tokens of a row, in all layers: float64 [E] on the CPU.

    Args:
        router_logits: of each layer, [T, E].
        num_tokens: number of tokens that count; those after them are of no example.
        chosen: number of experts that a token is routed to.
    """
    counts = torch.zeros(router_logits[0].shape[-1], dtype=torch.float64)
    for logits in router_logits:
        experts = logits[:num_tokens].topk(chosen, dim=-1).indices.flatten().cpu()
        counts += torch.bincount(experts, minlength=len(counts))
    return counts


def probabilities(router_logits: Sequence[Tensor], num_tokens: int) -> Tensor:
    """Sums over the first tokens of a row and all layers of each expert's probability: float32 [E] with gradient."""
    return torch.stack([logits[:num_tokens].float().softmax(dim=-1).sum(dim=0) for logits in router_logits]).sum(dim=0)
