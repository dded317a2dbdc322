import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from sftkey_dist.training.flops import ModelFlops, peak_flops_per_second


def test_flops_are_what_torch_counts_with_causal_attention_at_half(tiny_model):
    """torch counts attention over all L² pairs, ours over half of them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager", dtype=torch.float32)
    outside = model.get_input_embeddings().weight.numel()
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    ours = ModelFlops.of(model.config, matrices - outside)
    lengths = np.array([40, 25])
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        for length in lengths:
            model(input_ids=torch.ones(1, int(length), dtype=torch.int64), logits_to_keep=3)
    full_attention = 2 * ours.attention_width * float((lengths.astype(float) ** 2).sum())
    assert ours.of_step(lengths, num_logits=6) / 3 + full_attention == pytest.approx(
        counter.get_total_flops(), rel=1e-6
    )


def test_utilisation_is_not_made_up_where_the_peak_is_not_known():
    assert peak_flops_per_second(torch.device("cpu"), "float32") is None
