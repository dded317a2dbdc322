import numpy as np
import pytest
import transformers

from sftkey_dist.capacity import (
    ACCELERATORS,
    Cluster,
    estimate,
    find_accelerator,
    size_of,
    smallest_cluster,
    what_would_help,
)
from sftkey_dist.config.schema import OptimizationConfig
from sftkey_dist.config.training import ZeroConfig
from sftkey_dist.errors import ConfigError
from tests.benchmarks.capacity import LARGE, SHAPES, load_of

STAGE_1, STAGE_2 = (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)
H100 = ACCELERATORS["h100-80g"]


@pytest.fixture(scope="module")
def sizes():
    return {name: size_of(shape) for name, shape in SHAPES.items()}


def load(weights=STAGE_1, longest=400, batch=4096):
    counts = np.column_stack([np.full(8192, 60), np.linspace(40, longest - 64, 8192).astype(int), np.full(8192, 4)])
    optimization = OptimizationConfig(global_batch_size=batch, num_epochs=1)
    return load_of(counts, weights, optimization, SHAPES["8B (Qwen3)"], most_steps=2)


def test_parameters_are_those_that_the_models_are_known_for(sizes):
    found = [round(size.parameters / 1e9, 2) for size in sizes.values()]
    assert found == [8.19, 32.76, 70.55, 405.85]


def test_partitioned_state_is_twenty_bytes_a_parameter_less_what_is_gathered(sizes):
    size = sizes["70B (Llama 3.1)"]
    for nodes in (2, 8):
        parts = estimate(size, LARGE, Cluster(nodes, 8, H100), load()).memory.parts
        state = sum(parts[name] for name in ("weights, partitioned", "master weights and moments", "gradients"))
        assert state == pytest.approx(18 * size.parameters / (8 * nodes) / 2**30)
        assert parts["weights, gathered"] < 6


def test_a_model_that_does_not_fit_says_so_and_the_smallest_cluster_holds_it(sizes):
    size = sizes["405B (Llama 3.1)"]
    alone = estimate(size, LARGE, Cluster(1, 8, H100), load())
    assert not alone.fits
    assert alone.limit == "memory"
    nodes = smallest_cluster(size, LARGE, Cluster(1, 8, H100), load())
    assert nodes is not None
    assert estimate(size, LARGE, Cluster(nodes, 8, H100), load()).fits
    assert not estimate(size, LARGE, Cluster(nodes // 2, 8, H100), load()).fits


def test_a_slow_network_limits_and_longer_rows_help(sizes):
    size, short = sizes["8B (Qwen3)"], LARGE.model_copy(update={"micro_batch_tokens": 1024})
    fast = estimate(size, short, Cluster(4, 8, H100, network_gbps=3200), load())
    slow = estimate(size, short, Cluster(4, 8, H100, network_gbps=50), load())
    assert slow.limit == "communication"
    assert slow.seconds.communication > 10 * fast.seconds.communication
    setting, better = what_would_help(size, short, Cluster(4, 8, H100, network_gbps=50), load(), slow)
    assert setting == "training.micro_batch_tokens=2048 (double)"
    assert better.seconds.total < slow.seconds.total


def test_answer_only_stages_skip_the_vocabulary_and_recomputation_costs_a_third(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(1, 8, H100)
    first, second = (estimate(size, LARGE, cluster, load(weights)) for weights in (STAGE_1, STAGE_2))
    assert second.seconds.balanced < first.seconds.balanced
    plain = estimate(size, LARGE.model_copy(update={"gradient_checkpointing": False}), cluster, load())
    assert first.seconds.balanced == pytest.approx(plain.seconds.balanced * 4 / 3)
    assert plain.memory.parts["activations"] > 10 * first.memory.parts["activations"]


def test_offload_takes_the_optimizer_from_the_device(sizes):
    zero = ZeroConfig(offload="cpu")
    there = estimate(sizes["32B (Qwen2.5)"], LARGE.model_copy(update={"zero": zero}), Cluster(1, 8, H100), load())
    assert there.memory.parts["master weights and moments"] == 0
    assert there.memory.parts["gradients"] == 0


def test_cost_is_hours_of_all_gpus(sizes):
    found = estimate(sizes["8B (Qwen3)"], LARGE, Cluster(2, 8, H100, price_per_gpu_hour=3.0), load())
    assert found.cost == pytest.approx(found.stage_hours * 16 * 3)
    assert found.stage_hours == pytest.approx(found.seconds.total * 2 / 3600)


def test_an_unknown_gpu_is_named():
    with pytest.raises(ConfigError, match="h100-80g"):
        find_accelerator("h1000")


def test_what_is_no_decoder_is_refused():
    with pytest.raises(Exception, match="cannot be built"):
        size_of(transformers.ViTConfig())
