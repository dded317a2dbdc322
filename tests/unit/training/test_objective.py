"""Losses that are not the plain nll, against probabilities in double precision."""

import math

import numpy as np
import pytest
import torch

from sftkey_dist.config.objective import Objective
from sftkey_dist.training.forward.collate import AnchoredExamples, pack
from sftkey_dist.training.forward.loss import loss_sums, most_likely, token_losses
from sftkey_dist.training.forward.objective import objective_losses


def test_every_segment_is_trained_by_its_own_objective():
    """Two kinds beside each other, with values and gradients from probabilities in double precision."""
    torch.manual_seed(0)
    logits, targets = torch.randn(10, 30, requires_grad=True), torch.randint(30, (10,))
    segments = torch.arange(10) % 5
    objectives = (
        Objective(),
        Objective(kind="dft"),
        Objective(kind="power", exponent=0.3),
        Objective(kind="entropy", exponent=0.5),
        Objective(min_probability=0.02),
    )
    found = objective_losses(token_losses(logits, targets, with_entropy=True), segments, objectives)
    probabilities = torch.softmax(logits.double(), dim=-1)
    p = probabilities.gather(-1, targets[:, None])[:, 0]
    top = probabilities.detach().sort(descending=True).values[:, :20]
    top = top / top.sum(dim=-1, keepdim=True)
    entropy = -(top * top.log()).sum(dim=-1) / math.log(20)
    likely = (p >= 0.02).double()
    kinds = [-p.log(), p.detach() * -p.log(), (1 - p**0.3) / 0.3, entropy**0.5 * -p.log(), likely * -p.log()]
    assert 0 < likely[segments == 4].sum() < 2, "one of the two is too unlikely"
    expected = torch.stack(kinds)[segments, torch.arange(10)]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    (gradient,), (wanted,) = (torch.autograd.grad(loss.sum(), logits, retain_graph=True) for loss in (found, expected))
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("number", [3, 30])
def test_what_an_anchor_adds_is_the_divergence_from_the_start_where_it_holds(number):
    """The answers are trained and the reasoning is held; all tokens but the likeliest count as one."""
    torch.manual_seed(0)
    start, now = torch.randn(2, 4, 30)
    now.requires_grad = True
    ids, logs = most_likely(start, number).split(number, dim=1)
    segments = np.array([0, 1, 2, 1, 2])  # of the four targets, two are held
    held = [0, 2]
    predictions = (ids[held].int().numpy(), logs[held].numpy())
    anchored = AnchoredExamples((0.0, 0.5, 0.0), [predictions])
    row = pack([(np.arange(5), segments)], (0.0, 0.0, 2.0), False, np.array([3.0], np.float32), anchored)
    losses = token_losses(now, row.targets, start=(row.anchor.ids, row.anchor.log_probabilities))
    sums = loss_sums(losses, row, 3)
    p, q = (torch.softmax(logits[held].double(), dim=-1).gather(1, ids[held].long()) for logits in (start, now))
    if number < 30:
        p, q = (torch.cat([part, 1 - part.sum(dim=1, keepdim=True)], dim=1) for part in (p, q))
    divergence = 3.0 * 0.5 * (p * (p / q).log()).sum()
    nll = 3.0 * 2.0 * -torch.log_softmax(now.double(), dim=-1)[[1, 3], [2, 4]].sum()
    assert row.targets.tolist() == [1, 2, 3, 4]
    assert float(sums.anchored.detach()) == pytest.approx(float(divergence.detach()), rel=1e-5)
    assert float(sums.weighted.detach()) == pytest.approx(float((nll + divergence).detach()), rel=1e-5)
    (gradient,), (wanted,) = (
        torch.autograd.grad(loss, now, retain_graph=True) for loss in (sums.weighted, nll + divergence)
    )
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)
