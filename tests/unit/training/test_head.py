"""Losses from inside the output projection."""

import pytest
import torch
import transformers
from torch import nn

from sftkey_dist.errors import ModelError
from sftkey_dist.training.engine.packed import PackedModel
from sftkey_dist.training.forward.attention import PACKED, register_packed_attention
from sftkey_dist.training.forward.collate import dummy_row
from sftkey_dist.training.forward.head import ChunkedHead
from sftkey_dist.training.forward.loss import token_losses
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
    with head.computing(lambda logits, kept: token_losses(logits, targets[kept])):
        losses, kept = kept_elements(lambda: projection(hidden)[0])
    torch.testing.assert_close(losses, whole)
    for gradient, other in zip(torch.autograd.grad(losses[:, 0].sum(), wanted), expected, strict=True):
        torch.testing.assert_close(gradient, other)
    assert kept_whole > POSITIONS * VOCABULARY
    assert kept < 0.1 * kept_whole
    assert projection(hidden).shape == (1, POSITIONS, VOCABULARY), "elsewhere it returns logits"


SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (transformers.Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 2.0}),
        (transformers.CohereConfig, {"logit_scale": 0.25}),
        (transformers.GraniteConfig, {"logits_scaling": 4.0}),
        (transformers.Qwen3Config, {"head_dim": 8}),
    ],
)
def test_an_architecture_that_changes_its_logits_is_refused(kind, changes):
    register_packed_attention()
    config = kind(**SIZES, **changes, pad_token_id=0, bos_token_id=0, eos_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=PACKED)
    head = ChunkedHead(model.get_output_embeddings(), CHUNK)
    packed = PackedModel(model, "packed", head)
    if kind is transformers.Qwen3Config:
        assert packed.losses_without_dropout(dummy_row()).shape[-1] == 2
        return
    with pytest.raises(ModelError, match=r"training\.logit_chunk_positions=null"):
        packed.losses_without_dropout(dummy_row())
