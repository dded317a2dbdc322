import pytest
from transformers import AutoModelForCausalLM

from sftkey_dist.config.training import LoraConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.training.lora import add_adapters


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_layer", "training.lora.target_modules"),
        ("embed_tokens", "embed_tokens cannot have an adapter"),
        ("lm_head", "lm_head cannot have an adapter"),
    ],
)
def test_layers_that_cannot_be_merged_are_refused_before_training(tiny_model, target, message):
    """The output projection is tied to the embeddings here: merged into one of them it would change both."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(ModelError, match=message):
        add_adapters(model, LoraConfig(target_modules=(target,)))
