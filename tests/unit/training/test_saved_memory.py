"""Feed-forward blocks in chunks, and layer inputs in the host's memory: the same results from less memory."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.autograd.graph import save_on_cpu
from transformers import modeling_utils

from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.training.engine import loading
from sftkey_dist.training.forward.chunked_mlp import compute_mlps_in_chunks
from tests.kept import storages_kept

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TOKENS = 50


def make_model(kind=transformers.Qwen2Config):
    transformers.set_seed(0)
    return transformers.AutoModelForCausalLM.from_config(kind(**SIZES)).train()


def loss_of(model):
    ids = (torch.arange(TOKENS) * 7 % SIZES["vocab_size"])[None]
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def gradients(model):
    loss = loss_of(model)
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}


def kept_bytes(model) -> int:
    _, kept = storages_kept(lambda: loss_of(model))
    return sum(storage.nbytes() for storage in kept.values())


def test_blocks_in_chunks_give_the_same_and_keep_nothing_between_their_products():
    plain, chunked = make_model(), make_model()
    assert compute_mlps_in_chunks(chunked, 8) == pytest.approx(0.75, abs=0.05), "three products of four widths"
    (loss, expected), (same, found) = gradients(plain), gradients(chunked)
    assert torch.equal(loss, same)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    # The product's two operands, the activation and what it was computed from: four tensors of the block's width.
    spared = 4 * SIZES["num_hidden_layers"] * TOKENS * SIZES["intermediate_size"] * 4
    weights = sum(weight.nbytes for layer in plain.model.layers for weight in layer.mlp.parameters())
    assert kept_bytes(plain) - kept_bytes(chunked) == spared + weights, "recomputation takes the weights from the model"


def test_layers_without_such_a_block_are_refused():
    with pytest.raises(ModelError, match=r"no block named mlp; set training.mlp_chunk_tokens=null"):
        compute_mlps_in_chunks(make_model(transformers.OPTConfig), 8)


def test_blocks_that_return_more_than_a_tensor_are_refused():
    class Block(torch.nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden), None

    layer = torch.nn.Module()
    layer.mlp = Block(4, 4)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=1))
    model = torch.nn.Module()
    model.layers, model.config = torch.nn.ModuleList([layer]), config
    compute_mlps_in_chunks(model, 2)
    with pytest.raises(ModelError, match="return more than a tensor"):
        layer.mlp(torch.ones(1, 5, 4))


def test_the_inputs_of_all_layers_and_nothing_else_are_held_by_the_host(monkeypatch):
    """Where there is an accelerator; here the host's memory is the device's, and only what would be copied is seen."""
    copied: list[tuple[int, ...]] = []

    class Watched(save_on_cpu):
        def __init__(self, **_):
            super().__init__(pin_memory=False)
            pack = self.pack_hook
            self.pack_hook = lambda tensor: copied.append(tuple(tensor.shape)) or pack(tensor)

    settings = TrainingConfig(gradient_checkpointing=True, offload_activations=True)
    expected, model = make_model(), make_model()
    monkeypatch.setattr(modeling_utils, "save_on_cpu", Watched)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loading._save_memory(model, settings)
    monkeypatch.undo()
    monkeypatch.setattr(modeling_utils, "save_on_cpu", Watched)
    (loss, whole), (same, found) = gradients(expected), gradients(model)
    assert torch.equal(loss, same)
    assert all(torch.equal(found[name], gradient) for name, gradient in whole.items())
    hidden = (1, TOKENS, SIZES["hidden_size"])
    assert copied == [hidden] * SIZES["num_hidden_layers"]


def test_on_a_cpu_nothing_is_copied():
    model = make_model()
    loading._save_memory(model, TrainingConfig(gradient_checkpointing=True, offload_activations=True))
    functions = {layer._gradient_checkpointing_func.func for layer in model.model.layers}
    assert functions == {modeling_utils.checkpoint}
    assert isinstance(model.model.layers[0]._gradient_checkpointing_func, partial)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offload_activations": True}, "needs training.gradient_checkpointing=true"),
        ({"mlp_chunk_tokens": 8, "lora": {}}, "cannot be combined"),
        (
            {"zero": {"offload": "nvme", "nvme_path": "/nvme"}, "lora": {"weight_decomposed": True}},
            "weight_decomposed and training.zero.offload=nvme cannot be combined",
        ),
    ],
)
def test_settings_that_would_not_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)
