import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sftkey_dist.config.training import LoraConfig
from sftkey_dist.training.forward.attention import PACKED, PrefixCache, register_packed_attention
from sftkey_dist.training.forward.collate import pack, split_before_targets
from sftkey_dist.training.forward.flops import ModelFlops, Positions, peak_flops_per_second, prefix_tokens
from sftkey_dist.training.weights.lora import add_adapters, base_of

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ADAPTERS = {
    "whole": None,
    "adapters": LoraConfig(rank=4),
    "adapters of queries": LoraConfig(rank=4, target_modules=("q_proj",)),
    "adapters of the last matrix of a layer": LoraConfig(rank=4, target_modules=("down_proj",)),
}


def model_of(lora: LoraConfig | None = None, kind=transformers.Qwen3Config, attention="eager", **shape):
    torch.manual_seed(0)
    config = kind(**(SHAPE | {"tie_word_embeddings": False} | shape))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model.train()
    return add_adapters(model, lora) if lora else model


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def step(model, lengths, num_logits):
    """Forward and backward example by example, in eager attention; torch counts it over all L² pairs."""
    for length in lengths:
        ids = torch.ones(1, int(length), dtype=torch.int64)
        output = base_of(model)(input_ids=ids, use_cache=False, logits_to_keep=num_logits // len(lengths))
        output.logits.sum().backward()


def with_all_pairs(flops: ModelFlops, on: Positions, *, passes: int) -> float:
    """The other half of the pairs that causal attention does not look at."""
    return passes * 2 * flops.attention_width * on.pairs


@pytest.mark.parametrize(
    ("name", "frozen_keys_and_values"), [("whole", 0), ("adapters", 0), ("adapters of queries", 1)]
)
def test_flops_of_a_step_are_what_torch_counts_with_causal_attention_at_half(name, frozen_keys_and_values):
    model, lengths = model_of(ADAPTERS[name]), np.array([40, 25])
    ours = ModelFlops.of(base_of(model))
    counts = counted(lambda: step(model, lengths, 6))
    on = ours.positions(lengths, 6)
    # Keys and values that nothing before is trained of: attention's kernels make their gradients with the others'.
    not_made = frozen_keys_and_values * 4 * 32 * on.pairs
    assert ours.of_step(lengths, 6) + with_all_pairs(ours, on, passes=3) - not_made == counts


def test_adapters_spare_the_gradient_of_frozen_weights_and_all_of_what_comes_before_the_first():
    whole, adapted = (ModelFlops.of(base_of(model_of(ADAPTERS[name]))) for name in ("whole", "adapters"))
    frozen = 3 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 80)
    adapters = 3 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 80))
    before_the_first = 32 * 32 + 2 * 32 * 16 + 3 * 4 * 32
    assert whole.layer_weights == frozen
    assert whole.layer_gradients == 2 * frozen
    assert adapted.layer_weights == frozen + adapters
    assert adapted.layer_gradients == frozen + 2 * adapters - before_the_first
    assert (whole.logit_gradients, adapted.logit_gradients) == (2 * 32 * 96, 32 * 96)


def test_adapters_of_a_late_matrix_leave_the_first_layers_start_without_any_gradient():
    model = model_of(ADAPTERS["adapters of the last matrix of a layer"])
    ours = ModelFlops.of(base_of(model))
    ids = torch.ones(1, 40, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    products = [torch.ops.aten.mm, torch.ops.aten.addmm]
    found = sum(n for op, n in counter.get_flop_counts()["Global"].items() if op in products)
    on = ours.positions(np.array([40]), 40)
    assert ours.forward(on).products + ours.backward(on).products == found


@pytest.mark.parametrize("name", ["whole", "adapters"])
def test_a_stopped_prefix_has_a_forward_pass_alone(name):
    register_packed_attention()
    model = model_of(ADAPTERS[name], attention=PACKED)
    ours, weights = ModelFlops.of(base_of(model)), (0.0, 0.0, 0.0, 1.0)
    lengths = [(20, 1, 14, 6), (9, 1, 22, 3)]
    examples = [(np.ones(sum(n), dtype=np.int64), np.repeat([0, 2, 3, 1], [n[0], n[2], n[3], n[1]])) for n in lengths]
    row = pack(examples, weights, observe_all=False)
    prefix, rest = split_before_targets(row)
    memory = PrefixCache()

    def call(part, **boundaries):
        return base_of(model)(
            input_ids=part.input_ids,
            position_ids=part.position_ids,
            attention_mask=None,
            use_cache=False,
            example_lengths=part.example_lengths,
            logits_to_keep=part.kept_positions,
            **boundaries,
        )

    def run():
        with torch.no_grad():
            call(prefix, write_cache=memory)
        call(rest, read_cache=memory).logits.sum().backward()

    with FlopCounterMode(display=False) as counter:
        run()
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if op in (torch.ops.aten.mm,))
    counts = np.array(lengths)
    prefixes = prefix_tokens(counts, weights)
    assert prefixes.tolist() == list(prefix.example_lengths)
    whole = ours.positions(counts.sum(axis=1), 9)
    behind = whole.without_prefix(ours.positions(prefixes, 0))
    dummy_logit = 2 * ours.logit_weights  # of the prefix, which has no targets
    assert ours.forward(whole).products + ours.backward(behind).products + dummy_logit == products
    assert ours.of_step(counts.sum(axis=1), 9, prefixes) < 0.6 * ours.of_step(counts.sum(axis=1), 9)


def test_what_is_recomputed_is_the_accelerators_and_not_the_models():
    model, lengths = model_of(), np.array([40, 25])
    ours = ModelFlops.of(model)
    on = ours.positions(lengths, 6)
    plain = counted(lambda: step(model, lengths, 6))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.zero_grad()
    again = counted(lambda: step(model, lengths, 6))
    recomputed = ours.recomputed(on, layers=True, logits=False)
    # The last product of a layer is kept by nobody, and torch stops where everything that was kept is there again.
    last_products = 2 * 3 * SHAPE["intermediate_size"] * SHAPE["hidden_size"] * 65
    assert again - plain == recomputed.total + with_all_pairs(ours, on, passes=1) - last_products
    assert ours.of_step(lengths, 6) + with_all_pairs(ours, on, passes=3) == plain
    assert ours.recomputed(on, layers=False, logits=True).products == 2 * ours.logit_weights * 6


def test_long_examples_see_less_where_layers_have_a_window():
    settings = {"kind": transformers.Gemma3TextConfig, "sliding_window": 16, "num_hidden_layers": 6}
    whole, windowed = ModelFlops.of(model_of(num_hidden_layers=6)), ModelFlops.of(model_of(**settings))
    short, long = np.array([16, 9]), np.array([160])
    assert windowed.positions(short, 6) == whole.positions(short, 6)
    in_window = 16 * (2 * 160 - 16)
    assert windowed.positions(long, 6).pairs == pytest.approx((5 * in_window + 160**2) / 6)


def test_tied_and_untied_models_multiply_with_the_same_weights():
    tied, untied = (ModelFlops.of(model_of(tie_word_embeddings=tie)) for tie in (True, False))
    assert tied == untied


@pytest.mark.parametrize("kind", [transformers.Qwen3MoeConfig, transformers.MixtralConfig])
def test_a_token_passes_the_experts_it_is_routed_to(kind):
    names = {"num_local_experts": 8, "num_experts_per_tok": 2} if kind is transformers.MixtralConfig else EXPERTS
    model = model_of(kind=kind, **names)
    width = 80 if kind is transformers.MixtralConfig else 24
    ours, lengths = ModelFlops.of(model), np.array([40, 25])
    assert ours.layer_weights == 3 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 8 * 32 + 2 * 3 * 32 * width)
    assert ours.layer_gradients == 2 * ours.layer_weights
    # Expert by expert, since torch has no count for grouped products.
    model.set_experts_implementation("eager")
    counts = counted(lambda: step(model, lengths, 6))
    on = ours.positions(lengths, 6)
    assert ours.of_step(lengths, 6) + with_all_pairs(ours, on, passes=3) == pytest.approx(counts, rel=1e-9)


def test_prefixes_end_before_the_position_that_predicts_the_first_target():
    counts = np.array([[5, 1, 2, 7, 2, 2, 3, 2], [4, 1, 0, 0, 0, 2, 3, 2], [4, 1, 2, 3, 2, 0, 0, 0]])
    answer = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert prefix_tokens(counts, answer).tolist() == [5 + 11 + 2 - 1, 4 + 2 - 1, 12]
    end_of_turn = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert prefix_tokens(counts, end_of_turn).tolist() == [22, 10, 10]
    assert prefix_tokens(counts, (0.0, *[1.0] * 7)).tolist() == [4, 3, 3]


def test_lookups_are_no_products():
    model = model_of()
    assert any(isinstance(module, nn.Embedding) for module in model.modules())
    assert ModelFlops.of(model).layer_weights == sum(
        p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name and "head" not in name
    )


def test_utilisation_is_not_made_up_where_the_peak_is_not_known():
    assert peak_flops_per_second(torch.device("cpu"), "float32") is None
