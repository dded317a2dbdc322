"""What a model's configuration must have for settings of the training."""

from pathlib import Path

import pytest
import transformers

from sftkey_dist.errors import ConfigError
from sftkey_dist.models.shape import experts_per_token, require_heads_for, require_routers

FOLDER = Path("models/some")
DENSE = transformers.Qwen2Config(num_attention_heads=12, num_key_value_heads=2)
EXPERTS = transformers.Qwen3MoeConfig(num_experts=8, num_experts_per_tok=3)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 12])
def test_heads_are_shared_evenly(ranks):
    require_heads_for(FOLDER, DENSE, ranks)


def test_a_number_of_ranks_that_does_not_divide_the_heads_is_refused_with_those_that_do():
    with pytest.raises(
        ConfigError, match=r"sequence_parallel_ranks=8 must divide the 12 .* models/some; possible are 1, "
    ):
        require_heads_for(FOLDER, DENSE, 8)


def test_routers_are_balanced_only_where_there_are_some():
    require_routers(FOLDER, EXPERTS)
    assert experts_per_token(EXPERTS) == 3
    with pytest.raises(ConfigError, match=r"router_loss_weight: models/some is no mixture of experts"):
        require_routers(FOLDER, DENSE)
