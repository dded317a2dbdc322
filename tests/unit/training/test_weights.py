from types import SimpleNamespace

import pytest
import torch

from sftkey_dist.errors import ModelError
from sftkey_dist.training.engine.weights import StageWeights


class Stored(dict):
    def finer_than(self, precision):
        return frozenset()


def test_weights_that_a_folder_calls_otherwise_cannot_be_interpolated():
    masters = SimpleNamespace(names=["embed", "experts.gate_up", "experts.down"])
    weights = StageWeights(None, torch.nn.Linear(1, 1), masters, Stored(embed=1), "float32")
    with pytest.raises(ModelError, match=r"interpolate: 2 weights, such as experts\.gate_up, have another name"):
        weights.require_known_start()
    named = StageWeights(None, torch.nn.Linear(1, 1), masters, Stored(dict.fromkeys(masters.names)), "float32")
    named.require_known_start()
