import numpy as np
import pytest
import torch
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
from sftkey_dist.config.training import LoraConfig, ZeroConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.models.shape import head_dim_of
from sftkey_dist.training.attention import PACKED, register_packed_attention
from tests.benchmarks.capacity import LARGE, SHAPES, load_of
from tests.kept import storages_kept

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


def test_answer_only_stages_skip_the_vocabulary_and_recomputation_costs_up_to_a_third(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(1, 8, H100)
    first, second = (estimate(size, LARGE, cluster, load(weights)) for weights in (STAGE_1, STAGE_2))
    assert second.seconds.balanced < first.seconds.balanced
    plain = estimate(size, LARGE.model_copy(update={"gradient_checkpointing": False}), cluster, load())
    assert 1.28 < first.seconds.balanced / plain.seconds.balanced < 4 / 3, "the output projection is not recomputed"
    assert plain.memory.parts["activations"] > 10 * first.memory.parts["activations"]


def test_chunks_spare_the_logits_of_a_long_row_for_some_time(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(1, 8, H100)
    chunked = LARGE.model_copy(update={"logit_chunk_positions": 512})
    whole, parts = (estimate(size, training, cluster, load()) for training in (LARGE, chunked))
    assert parts.memory.parts["logits"] == pytest.approx(512 * size.vocab_size * 12 / 2**30)
    assert parts.memory.parts["logits"] < 0.2 * whole.memory.parts["logits"]
    assert 1.0 < parts.seconds.balanced / whole.seconds.balanced < 1.05


def test_offload_takes_the_optimizer_from_the_device(sizes):
    zero = ZeroConfig(offload="cpu")
    there = estimate(sizes["32B (Qwen2.5)"], LARGE.model_copy(update={"zero": zero}), Cluster(1, 8, H100), load())
    assert not {"master weights and moments", "gradients"} & there.memory.parts.keys()


def test_adapters_take_the_state_of_what_is_trained_alone(sizes):
    lora = LARGE.model_copy(update={"lora": LoraConfig(rank=16)})
    whole, adapted = sizes["8B (Qwen3)"], size_of(SHAPES["8B (Qwen3)"], lora)
    # Seven linear layers of every decoder layer: rank x (inputs + outputs).
    per_layer = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
    assert adapted.trained == 36 * 16 * per_layer
    assert adapted.parameters == whole.parameters
    full, small = (
        estimate(size, training, Cluster(1, 8, H100), load()) for size, training in ((whole, LARGE), (adapted, lora))
    )
    assert small.memory.parts["master weights and moments"] < 0.01 * full.memory.parts["master weights and moments"]
    assert small.checkpoint_gib < 0.01 * full.checkpoint_gib
    assert 0.8 < small.seconds.balanced / full.seconds.balanced < 0.9, "weights that are frozen have no gradient"


def test_a_second_copy_in_the_node_takes_memory_and_spares_the_network(sizes):
    size, cluster = sizes["70B (Llama 3.1)"], Cluster(8, 8, H100, network_gbps=400)
    hpz = LARGE.model_copy(update={"zero": ZeroConfig(secondary_partition_ranks=8)})
    plain, doubled = (estimate(size, training, cluster, load()) for training in (LARGE, hpz))
    copy = doubled.memory.parts["weights, second copy in the node"]
    assert copy == pytest.approx(size.parameters * 2 / 8 / 2**30)
    assert doubled.seconds.communication < plain.seconds.communication


def test_float32_doubles_weights_and_is_slower(sizes):
    device = H100.training_in("float32")
    shape = SHAPES["8B (Qwen3)"]
    half, single = (
        estimate(size_of(shape, LARGE, d.compute_bytes), LARGE, Cluster(1, 8, d), load()) for d in (H100, device)
    )
    weights = "weights, partitioned"
    assert single.memory.parts[weights] == pytest.approx(2 * half.memory.parts[weights])
    assert single.seconds.balanced > 10 * half.seconds.balanced


@pytest.mark.parametrize("kind", [transformers.Qwen2Config, transformers.Qwen3Config, transformers.SmolLM3Config])
def test_activations_are_what_autograd_keeps_of_a_packed_row(kind):
    config = kind(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    register_packed_attention()
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=PACKED)
    weights = {weight.data_ptr() for weight in model.parameters()}
    tokens = 512
    output, kept = storages_kept(
        lambda: model(
            input_ids=torch.zeros(1, tokens, dtype=torch.int64),
            position_ids=torch.arange(tokens)[None],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=1,
            example_lengths=(tokens,),
        )
    )
    measured = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    assert output.logits.requires_grad
    # The CPU's kernel also keeps keys and values repeated for every query head.
    repeated = 3 * tokens * 2 * (4 - 2) * head_dim_of(config) * 4
    assert size_of(config, compute_bytes=4).activation_bytes * tokens == pytest.approx(measured - repeated, rel=0.01)


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
