"""A stage in plain PyTorch: one process, one example a forward pass, full logits, textbook AdamW.

Written from the method alone (METHOD of arXiv:2512.21017 and the definition of AdamW); shares no code with the
trainer but the plan's list of examples per step.
"""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

Encoded = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, float]
"""Token ids and segment ids, and the weight of the example if it is not 1."""
TokenLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def train_reference(
    model_dir: Path,
    steps: Sequence[Sequence[Encoded]],
    weights: Sequence[float],
    learning_rate: float,
    warmup_steps: int,
    min_ratio: float = 0.1,
    max_grad_norm: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.95),
    epsilon: float = 1e-8,
    adapt: Callable[[Any], Any] | None = None,
    stop_prefix: bool = False,
    token_loss: TokenLoss | None = None,
    groups: Sequence[Sequence[int]] = (),
    replay: tuple[int, Sequence[float]] | None = None,
    anchor: tuple[float, Sequence[int], int] | None = None,
    router_loss_weight: float = 0.0,
    project: tuple[Sequence[Sequence[int]], Callable[[int], Sequence[Sequence[int]]]] | None = None,
    muon: tuple[float, float] | None = None,
) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Loss and gradient norm of every step, and the final weights; ``adapt`` adds adapters, merged in the end.

    ``stop_prefix`` takes no gradient through what comes before the first target's predecessor. ``token_loss`` takes
    logits [T, V], targets [T] and segment ids [T]. ``groups`` of segment ids have a mean each, and the means are added.
    ``replay`` is a number of steps, and the weights of the last of so many. ``anchor`` is the factor of the divergence
    from the start, the segments whose tokens have it, and the number of likeliest tokens that are told apart.
    ``router_loss_weight`` is the factor of what transformers computes of the routers' logits, of all tokens of a step.
    ``project`` has the segment ids of each part of the loss whose gradients are projected on each other, and returns
    for a step the orders of `projected_sum`.
    ``muon`` is the learning rate as a multiple of AdamW's, and the momentum, for the projections of the layers.
    """
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = adapt(model) if adapt else model
    start = copy.deepcopy(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    losses, norms = [], []
    for step, examples in enumerate(steps):
        is_replayed = replay is not None and step % replay[0] == replay[0] - 1
        of_step = replay[1] if replay is not None and is_replayed else weights
        stops_prefix = stop_prefix and not is_replayed
        terms, segments = _step_terms(model, examples, of_step, stops_prefix, token_loss or _nll, groups)
        loss = terms.sum()
        if anchor is not None:
            loss = loss + anchor[0] * _divergence(model, start, examples, *anchor[1:])
        if router_loss_weight:
            loss = loss + router_loss_weight * _router_loss(model, examples)
        if project is not None:
            parts = [terms[torch.isin(segments, torch.tensor(part))].sum() for part in project[0]]
            gradients = _projected(parts, parameters, project[1](step))
        else:
            gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients.values()))
        clip = min(1.0, max_grad_norm / (norm + 1e-6))
        rate = _rate(step, len(steps), learning_rate, warmup_steps, min_ratio)
        with torch.no_grad():
            for name, parameter in parameters.items():
                gradient = gradients[name] * clip
                if muon is not None and name.endswith("_proj.weight"):
                    first[name].mul_(muon[1]).add_(gradient, alpha=1 - muon[1])
                    ahead = gradient * (1 - muon[1]) + first[name] * muon[1]
                    parameter -= (
                        rate * muon[0] * _orthogonal(ahead) * math.sqrt(max(1, ahead.shape[0] / ahead.shape[1]))
                    )
                    continue
                first[name].mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
                second[name].mul_(betas[1]).add_(gradient * gradient, alpha=1 - betas[1])
                m = first[name] / (1 - betas[0] ** (step + 1))
                v = second[name] / (1 - betas[1] ** (step + 1))
                parameter -= rate * m / (v.sqrt() + epsilon)
        losses.append(loss.item())
        norms.append(norm)
    merged = model.merge_and_unload() if adapt else model
    return losses, norms, {name: p.detach().clone() for name, p in merged.named_parameters()}


def projected_sum(gradients: Sequence[torch.Tensor], orders: Sequence[Sequence[int]]) -> torch.Tensor:
    """Algorithm 1 of arXiv:2001.06782; ``orders`` has for each gradient the order in which it meets the others."""
    projected = [gradient.clone() for gradient in gradients]
    for number, order in enumerate(orders):
        for other in order:
            product = projected[number] @ gradients[other]
            if product < 0:
                projected[number] -= product / (gradients[other] @ gradients[other]) * gradients[other]
    return torch.stack(projected).sum(dim=0)


def _projected(
    losses: Sequence[torch.Tensor], parameters: dict[str, torch.Tensor], orders: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    of_losses = [torch.autograd.grad(loss, list(parameters.values()), retain_graph=True) for loss in losses]
    flat = projected_sum([torch.cat([g.flatten().double() for g in gradients]) for gradients in of_losses], orders)
    parts = flat.float().split([parameter.numel() for parameter in parameters.values()])
    return {name: part.view_as(parameters[name]) for name, part in zip(parameters, parts, strict=True)}


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Five steps of the iteration that brings singular values near 1; the polynomial is that of the method's author."""
    u, values, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (u @ values.diag() @ v).float()


def _step_terms(
    model,
    examples: Sequence[Encoded],
    weights: Sequence[float],
    stop_prefix: bool,
    token_loss: TokenLoss,
    groups: Sequence[Sequence[int]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every token adds to the loss, and the token's segment."""
    losses, segments, of_examples = [], [], []
    for input_ids, segment_ids, *weight in examples:
        row = torch.tensor(input_ids)[None]
        logits = (
            _logits_behind_prefix(model, row, segment_ids, weights) if stop_prefix else model(input_ids=row).logits[0]
        )
        # What position t - 1 gives to the token at t, which weighs as its segment does.
        losses.append(token_loss(logits[:-1], row[0, 1:], torch.tensor(segment_ids[1:])))
        segments += list(segment_ids[1:])
        of_examples += (weight or [1.0]) * (len(segment_ids) - 1)
    all_losses = torch.cat(losses)
    of_tokens = torch.tensor([weights[segment] * w for segment, w in zip(segments, of_examples, strict=True)])
    if not groups:
        return of_tokens * all_losses / of_tokens.sum(), torch.tensor(segments)
    terms = torch.zeros(len(segments))
    for group in groups:
        is_in = torch.tensor([segment in group for segment in segments]) & (of_tokens > 0)
        if is_in.any():
            of_group = of_tokens * is_in
            terms = terms + max(weights[segment] for segment in group) * of_group * all_losses / of_group.sum()
    return terms, torch.tensor(segments)


def _divergence(model, start, examples: Sequence[Encoded], segments: Sequence[int], number: int) -> torch.Tensor:
    """Mean over all anchored tokens of the divergence from the start; all but the likeliest tokens count as one."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0.0
    for input_ids, segment_ids, *weight in examples:
        row, (of_row,) = torch.tensor(input_ids)[None], weight or [1.0]
        is_anchored = torch.isin(torch.tensor(segment_ids[1:]), torch.tensor(segments))
        with torch.no_grad():
            before = torch.softmax(start(input_ids=row).logits[0, :-1][is_anchored].double(), dim=-1)
        now = torch.softmax(model(input_ids=row).logits[0, :-1][is_anchored].double(), dim=-1)
        likeliest = before.argsort(dim=-1, descending=True)[:, :number]
        p, q = before.gather(1, likeliest), now.gather(1, likeliest)
        if number < before.shape[1]:
            p, q = (torch.cat([part, 1 - part.sum(dim=1, keepdim=True)], dim=1) for part in (p, q))
        total = total + of_row * (p * (p / q).log()).sum()
        tokens += of_row * int(is_anchored.sum())
    return (total / tokens).float()


def _router_loss(model, examples: Sequence[Encoded]) -> torch.Tensor:
    logits = [
        model(input_ids=torch.tensor(input_ids)[None], output_router_logits=True).router_logits
        for input_ids, *_ in examples
    ]
    of_layers = tuple(torch.cat(layer) for layer in zip(*logits, strict=True))
    experts = of_layers[0].shape[1]
    return load_balancing_loss_func(of_layers, experts, model.config.num_experts_per_tok)


def _nll(logits: torch.Tensor, targets: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return -torch.log_softmax(logits, dim=-1).gather(-1, targets[:, None])[:, 0]


def _logits_behind_prefix(model, row: torch.Tensor, segment_ids: np.ndarray, weights: Sequence[float]) -> torch.Tensor:
    before = next(t for t in range(1, len(segment_ids)) if weights[segment_ids[t]]) - 1
    with torch.no_grad():
        prefix = model(input_ids=row[:, :before], use_cache=True)
    rest = model(input_ids=row[:, before:], past_key_values=prefix.past_key_values)
    return torch.cat([prefix.logits[0], rest.logits[0]])


def _rate(step: int, num_steps: int, peak: float, warmup_steps: int, min_ratio: float) -> float:
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (num_steps - 1 - warmup_steps)
    return peak * (min_ratio + (1 - min_ratio) * (1 + math.cos(math.pi * progress)) / 2)
