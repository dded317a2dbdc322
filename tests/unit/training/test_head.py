"""Losses from inside the output projection."""

import torch
from torch import nn

from sftkey_dist.training.head import ChunkedHead
from sftkey_dist.training.loss import token_losses
from tests.kept import storages_kept

POSITIONS, WIDTH, VOCABULARY, CHUNK = 50, 8, 400, 7


def kept_elements(forward):
    """What `forward` returns, and the elements that autograd keeps for its backward pass."""
    result, kept = storages_kept(forward)
    return result, sum(storage.nbytes() // 4 for storage in kept.values())


def test_chunks_have_the_losses_and_gradients_of_all_logits_and_keep_none():
    torch.manual_seed(0)
    projection = nn.Linear(WIDTH, VOCABULARY, bias=False)
    hidden = torch.randn(1, POSITIONS, WIDTH, requires_grad=True)
    targets = torch.randint(VOCABULARY, (POSITIONS,))
    targets[::3] = projection(hidden)[0, ::3].argmax(dim=-1)
    wanted = (hidden, projection.weight)

    whole, kept_whole = kept_elements(lambda: token_losses(projection(hidden)[0], targets))
    expected = torch.autograd.grad(whole[:, 0].sum(), wanted)
    assert 0.3 < float(whole[:, 1].detach().mean()) < 0.5

    head = ChunkedHead(projection, CHUNK)
    with head.returning_losses(targets):
        losses, kept = kept_elements(lambda: projection(hidden)[0])
    torch.testing.assert_close(losses, whole)
    for gradient, other in zip(torch.autograd.grad(losses[:, 0].sum(), wanted), expected, strict=True):
        torch.testing.assert_close(gradient, other)
    assert kept_whole > POSITIONS * VOCABULARY
    assert kept < 0.1 * kept_whole
    assert projection(hidden).shape == (1, POSITIONS, VOCABULARY), "elsewhere it returns logits"
