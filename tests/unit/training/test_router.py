"""The loss that balances routers, from parts of the tokens, against that of transformers from all of them."""

import pytest
import torch
import transformers
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from sftkey_dist.errors import ModelError
from sftkey_dist.training.forward.router import RouterBalance, choice_counts, probabilities, require_known_routers

EXPERTS, CHOSEN, TOKENS, LAYERS = 6, 2, 50, 3


@pytest.fixture
def router_logits():
    torch.manual_seed(0)
    return [torch.randn(TOKENS, EXPERTS, requires_grad=True) for _ in range(LAYERS)]


def rows_of(router_logits, parts, filled_up=0):
    """The logits of each row, with some of tokens that are of no example."""
    for tokens in torch.arange(TOKENS).split(parts):
        row = [layer[tokens] for layer in router_logits]
        yield [torch.cat([layer, torch.full((filled_up, EXPERTS), 9.0)]) for layer in row], len(tokens)


@pytest.mark.parametrize(("parts", "filled_up"), [([TOKENS], 0), ([7, 20, 23], 0), ([7, 20, 23], 4)])
def test_parts_add_up_to_what_transformers_computes_of_all_tokens(router_logits, parts, filled_up):
    expected = load_balancing_loss_func(tuple(router_logits), EXPERTS, CHOSEN)
    of_expected = torch.autograd.grad(expected, router_logits)
    rows = list(rows_of(router_logits, parts, filled_up))
    balance = RouterBalance.of(sum(choice_counts(row, tokens, CHOSEN) for row, tokens in rows), CHOSEN)
    assert balance.num_routed == TOKENS * LAYERS
    loss = sum(balance.loss(probabilities(row, tokens)) for row, tokens in rows)
    torch.testing.assert_close(loss, expected)
    for gradient, wanted in zip(torch.autograd.grad(loss, router_logits), of_expected, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_the_mean_over_rows_is_another_number(router_logits):
    """The control: what most trainers minimise depends on how examples are packed."""
    expected = load_balancing_loss_func(tuple(router_logits), EXPERTS, CHOSEN)
    of_rows = [load_balancing_loss_func(tuple(row), EXPERTS, CHOSEN) for row, _ in rows_of(router_logits, [7, 20, 23])]
    assert torch.stack(of_rows).mean().item() != pytest.approx(expected.item(), rel=1e-3)


def test_a_row_without_examples_adds_nothing():
    logits = [torch.randn(1, EXPERTS, requires_grad=True)]
    assert choice_counts(logits, 0, CHOSEN).tolist() == [0.0] * EXPERTS
    sums = probabilities(logits, 0)
    assert sums.tolist() == [0.0] * EXPERTS
    assert sums.requires_grad, "its gradient takes part in every collective"


def test_routers_that_choose_with_a_correction_are_refused():
    """Their loss would be of choices that they do not make."""
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.device("meta"):
        corrected = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**sizes, first_k_dense_replace=0))
        plain = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes, num_experts=4))
    require_known_routers(plain)
    with pytest.raises(ModelError, match=r"choose with a correction .*router_loss_weight=0"):
        require_known_routers(corrected)


def test_probabilities_of_routers_in_bfloat16_are_summed_in_float32():
    logits = [torch.zeros(1000, 3, dtype=torch.bfloat16)]
    assert probabilities(logits, 1000).tolist() == pytest.approx([1000 / 3] * 3, rel=1e-6)
