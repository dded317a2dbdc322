from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from sftkey_dist.config.training import LoraConfig
from sftkey_dist.errors import ModelError
from sftkey_dist.training.engine.whole_weights import WholeWeights
from sftkey_dist.training.weights.lora import add_adapters

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
ONE_RANK = SimpleNamespace(rank=0, world_size=1, all_reduce_sum=lambda values: values)
UNSHARDED = SimpleNamespace(whole=lambda parameter: parameter.detach().float())


class Stored(dict):
    def whole(self, name):
        return self[name]


@pytest.fixture
def adapted(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    return add_adapters(model, LoraConfig(target_modules=("q_proj",), weight_decomposed=True))


def test_rows_have_the_lengths_of_what_the_folder_stores(adapted):
    stored = torch.rand(adapted.get_base_model().get_parameter(Q_PROJ.replace("q_proj", "q_proj.base_layer")).shape)
    found = WholeWeights(ONE_RANK, adapted, UNSHARDED, Stored({Q_PROJ: stored}), [Q_PROJ]).lengths_of_rows()
    assert found.keys() == {name for name, _ in adapted.named_parameters() if "lora_magnitude_vector" in name}
    first = next(iter(found.values()))
    torch.testing.assert_close(first, stored.square().sum(dim=1).sqrt())


def test_a_row_of_zeros_is_refused(adapted):
    stored = torch.ones(adapted.get_base_model().get_parameter(Q_PROJ.replace("q_proj", "q_proj.base_layer")).shape)
    stored[3] = 0
    weights = WholeWeights(ONE_RANK, adapted, UNSHARDED, Stored({Q_PROJ: stored}), [Q_PROJ])
    with pytest.raises(ModelError, match=r"weight_decomposed: 1 rows of model\.layers\.0\.self_attn\.q_proj\.weight"):
        weights.lengths_of_rows()
