from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from sftkey_dist.capacity import (
    ACCELERATORS,
    Cluster,
    GuardCopy,
    ModelSize,
    StageLoad,
    estimate,
    find_accelerator,
    size_of,
    smallest_cluster,
    stage_load,
    what_would_help,
)
from sftkey_dist.capacity import load as load_module
from sftkey_dist.capacity.estimate import Fullest
from sftkey_dist.capacity.host import estimate_export
from sftkey_dist.capacity.memory import live_elements
from sftkey_dist.capacity.speed import Rows
from sftkey_dist.capacity.traffic import traffic_of
from sftkey_dist.config import load_config
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import LoraConfig, TrainingConfig, ZeroConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.models.shape import decoder_cost, head_dim_of
from sftkey_dist.strategy import Stage
from sftkey_dist.training.engine.deepspeed_config import WeightSizes, deepspeed_config
from sftkey_dist.training.forward.attention import PACKED, register_packed_attention
from tests.benchmarks.capacity import LARGE, MIXTURES, SHAPES, load_of
from tests.kept import storages_kept
from tests.stage_job import make_stage_job

STAGE_1, STAGE_2 = (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)
H100 = ACCELERATORS["h100-80g"]
CONFIGS = Path(__file__).parents[3] / "configs"


SMALLEST = "8B (Qwen3)"
NAMES = [name if name == SMALLEST else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES]
LORA = LARGE.model_copy(update={"lora": LoraConfig(rank=16)})


class Sizes(dict[str, ModelSize]):
    """Counts a model when a test first asks for it: that takes seconds of a core."""

    def __init__(self, training: TrainingConfig) -> None:
        self._training = training

    def __missing__(self, name: str) -> ModelSize:
        self[name] = size_of(SHAPES[name], self._training)
        return self[name]


@pytest.fixture(scope="module")
def sizes():
    return Sizes(LARGE)


@pytest.fixture(scope="module")
def adapted():
    """The same models with adapters as in LORA."""
    return Sizes(LORA)


def load(weights=STAGE_1, longest=400, batch=4096):
    counts = np.column_stack([np.full(8192, 60), np.linspace(40, longest - 64, 8192).astype(int), np.full(8192, 4)])
    optimization = OptimizationConfig(global_batch_size=batch, num_epochs=1)
    return load_of(counts, weights, optimization, SHAPES["8B (Qwen3)"], most_steps=2)


def full_rows(tokens=8192, micro_batches=1, with_loss=None):
    """Every rank has so many rows of one example each, with loss on some positions or all, and all observed."""

    def rows_for(ranks, micro_batch_tokens):
        each = np.full((ranks, micro_batches), tokens)
        return [Rows(each, each * tokens, np.full_like(each, with_loss or tokens), each)]

    return StageLoad("stage", 1, tokens, rows_for)


@pytest.mark.slow
def test_parameters_are_those_that_the_models_are_known_for(sizes):
    found = [round(sizes[name].parameters / 1e9, 2) for name in SHAPES]
    assert found == [8.19, 32.76, 70.55, 405.85]


@pytest.mark.slow
def test_partitioned_state_is_twenty_bytes_a_parameter_less_what_is_gathered(sizes):
    size = sizes["70B (Llama 3.1)"]
    for nodes in (2, 8):
        parts = estimate(size, LARGE, Cluster(nodes, 8, H100), load()).memory.parts
        state = sum(parts[name] for name in ("weights, partitioned", "master weights and moments", "gradients"))
        assert state == pytest.approx(18 * size.parameters / (8 * nodes) / 2**30)
        assert parts["weights, gathered"] < 6


@pytest.mark.slow
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


@pytest.mark.slow
def test_offloaded_weights_are_copied_from_the_host_for_both_passes_of_every_micro_batch(sizes):
    size, cluster = sizes[SMALLEST], Cluster(1, 8, H100)
    plain = LARGE.model_copy(update={"zero": ZeroConfig(offload="cpu", max_gathered_gib=0)})
    zero = ZeroConfig(offload="cpu", offload_weights=True, max_gathered_gib=0)
    offloaded = LARGE.model_copy(update={"zero": zero})
    rows = full_rows(4096, micro_batches=3)
    now, on_host = (estimate(size, training, cluster, rows).seconds.compute for training in (plain, offloaded))
    assert on_host - now == pytest.approx(3 * 2 * size.parameters / 8 * 2 / 25e9)


def test_offload_takes_the_optimizer_from_the_device(sizes):
    zero = ZeroConfig(offload="cpu")
    there = estimate(sizes["32B (Qwen2.5)"], LARGE.model_copy(update={"zero": zero}), Cluster(1, 8, H100), load())
    assert not {"master weights and moments", "gradients"} & there.memory.parts.keys()


def test_adapters_take_the_state_of_what_is_trained_alone(sizes, adapted):
    whole, with_adapters = sizes["8B (Qwen3)"], adapted["8B (Qwen3)"]
    # Seven linear layers of every decoder layer: rank x (inputs + outputs).
    per_layer = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
    assert with_adapters.trained == 36 * 16 * per_layer
    assert with_adapters.parameters == whole.parameters
    full = estimate(whole, LARGE, Cluster(1, 8, H100), load())
    small = estimate(with_adapters, LORA, Cluster(1, 8, H100), load())
    assert small.memory.parts["master weights and moments"] < 0.01 * full.memory.parts["master weights and moments"]
    assert small.checkpoint_gib < 0.01 * full.checkpoint_gib
    assert 0.8 < small.seconds.balanced / full.seconds.balanced < 0.9, "weights that are frozen have no gradient"


def test_lengths_of_rows_are_trained_and_what_they_scale_is_kept_for_every_token():
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4
    )
    kinds = (LoraConfig(), LoraConfig(weight_decomposed=True))
    plain, decomposed = (size_of(config, LARGE.model_copy(update={"lora": lora})) for lora in kinds)
    rows = 2 * (4 * 512 + 2 * 1024 + 512)
    assert decomposed.trained == plain.trained + rows
    # In bfloat16: the outputs of the layer and of its adapter, but no whole weights.
    assert decomposed.activation_bytes == plain.activation_bytes + 2 * rows * 2


def test_adapters_are_all_that_is_reduced_and_gathered_after_the_update(adapted):
    size = adapted["8B (Qwen3)"]
    traffic = traffic_of(size, LORA, Cluster(4, 8, H100))
    assert traffic.once.collectives == 36 * (7 * 2 - 3), "but those of 12,288 rows or columns, which do not stay"
    bucket = LORA.model_copy(update={"zero": ZeroConfig(reduce_bucket_elements=size.trained)})
    assert traffic_of(size, bucket, Cluster(4, 8, H100)).ends.received_bytes == pytest.approx(
        31 / 32 * (size.trained * 4 + size.embedding * 2)
    )


@pytest.mark.slow
def test_a_second_copy_in_the_node_takes_memory_and_spares_the_network(sizes):
    size, cluster = sizes["70B (Llama 3.1)"], Cluster(8, 8, H100, network_gbps=400)
    hpz = LARGE.model_copy(update={"zero": ZeroConfig(secondary_partition_ranks=8)})
    plain, doubled = (estimate(size, training, cluster, load()) for training in (LARGE, hpz))
    copy = doubled.memory.parts["weights, second copy in the node"]
    assert copy == pytest.approx(size.parameters * 2 / 8 / 2**30)
    assert doubled.seconds.communication < plain.seconds.communication


@pytest.mark.slow
def test_float32_doubles_weights_and_is_slower(sizes):
    device = H100.training_in("float32")
    in_float32 = size_of(SHAPES["8B (Qwen3)"], LARGE, device.compute_bytes)
    half = estimate(sizes["8B (Qwen3)"], LARGE, Cluster(1, 8, H100), load())
    single = estimate(in_float32, LARGE, Cluster(1, 8, device), load())
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


@pytest.mark.parametrize("network", [{}, {"network_gbps": 3200.0}, {"transport": "tcp"}])
@pytest.mark.parametrize("name", NAMES)
def test_a_rank_does_no_more_in_a_larger_cluster(sizes, name, network):
    # The update alone gets shorter, since it is partitioned; what ranks do for each other has to outweigh that.
    clusters = [Cluster(2**power, 8, H100, **network) for power in range(11)]
    found = [estimate(sizes[name], LARGE, cluster, full_rows(micro_batches=2)) for cluster in clusters]
    rates = [each.tokens_per_second / cluster.ranks for each, cluster in zip(found, clusters, strict=True)]
    assert found[-1].seconds.optimizer < found[0].seconds.optimizer / 1000
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.99 * rates[0]


def test_a_ring_passes_through_every_rank_and_nccl_takes_the_quickest_protocol():
    cluster = Cluster(64, 8, H100, network_gbps=3200)
    assert cluster.ring_seconds(0, 10) == pytest.approx(10 * (6.6 + 448 * 1.0 + 63 * 2.7) * 1e-6)
    seconds_of_bytes = 1e9 / (3200e9 / 8 * 0.8)
    assert cluster.ring_seconds(1e9, 10) == pytest.approx(
        10 * (14.0 + 448 * 1.9 + 63 * 4.0) * 1e-6 + seconds_of_bytes / 0.92
    )
    assert cluster.ring_seconds(1e12, 10) == pytest.approx(
        10 * (8.4 + 448 * 3.4 + 63 * 14.0) * 1e-6 + 1000 * seconds_of_bytes
    )
    assert Cluster(1, 1, H100).ring_seconds(0, 10) == 0


def test_latency_is_hidden_like_bandwidth_until_it_is_longer_than_the_computation(sizes):
    size, load = sizes["8B (Qwen3)"], full_rows()
    small, large, huge = (
        estimate(size, LARGE, Cluster(nodes, 8, H100, network_gbps=3200), load).seconds for nodes in (2, 64, 1024)
    )
    assert small.communication < large.communication < 0.2 * large.compute
    assert huge.communication > huge.compute


def test_without_rdma_the_network_is_slower_and_a_single_node_as_fast(sizes):
    size, load = sizes["8B (Qwen3)"], full_rows()

    def step(nodes, transport):
        return estimate(size, LARGE, Cluster(nodes, 8, H100, transport=transport), load)

    assert step(4, "tcp").seconds.communication > 5 * step(4, "rdma").seconds.communication
    assert step(4, "tcp").received_gib == step(4, "rdma").received_gib
    assert step(4, "tcp").limit == "communication"
    assert step(1, "tcp").seconds == step(1, "rdma").seconds


def test_collectives_of_a_micro_batch_are_those_that_buckets_leave(sizes):
    size = sizes["8B (Qwen3)"]
    traffic = traffic_of(size, LARGE, Cluster(4, 8, H100))
    # A layer in two parts, q to gate ahead of time; the output projection twice, the input embedding once here and once
    # before the first layer.
    gathers = 36 * 2 + 1 + 1 + 36 * 2 + 1
    # down, up and gate are larger than the bucket, the others and the norms fit into one. The input embedding's
    # gradient is the last one.
    reductions = 1 + 36 * 4 + 1
    assert traffic.beside.collectives == gathers + reductions
    assert traffic.ends.collectives == 2
    assert traffic.once.collectives == 36 * 4 + 1, "norms stay, and each is gathered after the update"
    weights, others = size.parameters - 36 * (2 * 4096 + 2 * 128) - 4096, 31 / 32
    assert traffic.beside.received_bytes + traffic.ends.received_bytes == pytest.approx(
        others * (2 * 2 * weights + 4 * size.parameters), rel=1e-3
    )


@pytest.mark.slow
def test_beside_adapters_what_does_not_stay_until_its_backward_pass_is_gathered_a_third_time(adapted):
    size, cluster = adapted["70B (Llama 3.1)"], Cluster(4, 8, H100)
    kept = LORA.model_copy(update={"zero": ZeroConfig(max_gathered_gib=4)})
    plain = LORA.model_copy(update={"gradient_checkpointing": False})
    default, stays, not_recomputed = (traffic_of(size, each, cluster).beside for each in (LORA, kept, plain))
    # Between the two uses of q, k, v and o lie gate, up and down twice: 1.4 G elements, and 1.07 G stay.
    again = 80 * (2 * 8192 * 8192 + 2 * 8192 * 1024)
    assert default.received_bytes - stays.received_bytes == pytest.approx(31 / 32 * 2 * again)
    assert stays.received_bytes == not_recomputed.received_bytes


def test_gradients_in_bfloat16_halve_what_is_reduced(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(4, 8, H100)
    half = LARGE.model_copy(update={"zero": ZeroConfig(reduce_precision="bfloat16")})
    whole, halved = (estimate(size, each, cluster, full_rows(micro_batches=3)) for each in (LARGE, half))
    assert whole.received_gib - halved.received_gib == pytest.approx(3 * 31 / 32 * 2 * size.trained / 2**30)
    travelling = "gradient reduction buffers"
    assert halved.memory.parts[travelling] < 0.6 * whole.memory.parts[travelling]


@pytest.mark.parametrize("gathered_gib", [0.0, 0.05, 2.0, 8.0])
@pytest.mark.parametrize("name", [NAMES[0], NAMES[-1]])
def test_what_is_gathered_ahead_is_what_the_engine_asks_for(sizes, name, gathered_gib):
    size = sizes[name]
    training = LARGE.model_copy(update={"zero": ZeroConfig(max_gathered_gib=gathered_gib)})
    job = make_stage_job(Path(), Path(), Path(), STAGE_1, training=training, precision="bfloat16")
    asked = deepspeed_config(job, WeightSizes(2 * size.parameters, size.largest_matrix), 16)["zero_optimization"]
    assert live_elements(size, training, H100) == asked["stage3_max_live_parameters"]
    gathered = estimate(size, training, Cluster(16, 8, H100), full_rows()).memory.parts["weights, gathered"]
    beyond = max(size.vocab_size * size.hidden_size, sum(size.layer_weights))
    assert gathered == pytest.approx(2 * (asked["stage3_max_live_parameters"] + beyond) / 2**30)


@pytest.mark.slow
@pytest.mark.parametrize("with_loss", [8192, 200])
@pytest.mark.parametrize(
    ("file", "name", "nodes"),
    [("qwen2_5_32b", "32B (Qwen2.5)", 2), ("llama3_1_70b", "70B (Llama 3.1)", 4)],
)
def test_large_configurations_hold_a_full_row_of_either_stage(sizes, file, name, nodes, with_loss):
    config = load_config([CONFIGS / "gsm8k.yaml", CONFIGS / "models" / f"{file}.yaml"])
    assert config.cluster.num_workers == 8 * nodes
    cluster, row = Cluster(nodes, 8, H100), full_rows(config.training.micro_batch_tokens, with_loss=with_loss)
    assert estimate(sizes[name], config.training, cluster, row).fits
    twice = full_rows(2 * config.training.micro_batch_tokens, with_loss=with_loss)
    unchunked = config.training.model_copy(update={"logit_chunk_positions": None})
    assert not estimate(sizes[name], unchunked, cluster, twice).fits, "what these settings are there for"


def test_cost_is_hours_of_all_gpus(sizes):
    found = estimate(sizes["8B (Qwen3)"], LARGE, Cluster(2, 8, H100, price_per_gpu_hour=3.0), load())
    assert found.cost == pytest.approx(found.stage_hours * 16 * 3)
    assert found.stage_hours == pytest.approx(found.seconds.total * 2 / 3600)


QWEN3_30B_A3B = MIXTURES["30B-A3B (Qwen3)"]
MIXTRAL_8X7B = transformers.MixtralConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    num_local_experts=8,
    num_experts_per_tok=2,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def mixtures():
    return {"qwen": size_of(QWEN3_30B_A3B), "mixtral": size_of(MIXTRAL_8X7B)}


def test_a_dense_model_is_counted_to_the_weight(sizes):
    size = sizes["8B (Qwen3)"]
    matrices = 4096 * (32 + 8 + 8) * 128 + 32 * 128 * 4096 + 3 * 4096 * 12288
    norms = 2 * 4096 + 2 * 128
    assert size.parameters == 8_190_735_360 == 36 * (matrices + norms) + 4096 + 2 * 151936 * 4096
    assert size.flops.layer_weights == 36 * matrices
    assert size.flops.layer_gradients == 2 * 36 * matrices
    assert size.flops.logit_weights == 151936 * 4096
    assert size.key_value_bytes == 36 * 2 * 8 * 128 * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "attention", "router", "expert", "active", "layers"),
    [
        ("qwen", 30_532_122_624, 2048 * (32 + 4 + 4 + 32) * 128, 128 * 2048, 3 * 2048 * 768, 8, 48),
        ("mixtral", 46_702_792_704, 4096 * (32 + 8 + 8 + 32) * 128, 8 * 4096, 3 * 4096 * 14336, 2, 32),
    ],
)
def test_all_experts_lie_in_memory_and_a_token_passes_a_few(
    mixtures, name, parameters, attention, router, expert, active, layers
):
    size = mixtures[name]
    assert size.parameters == size.trained == parameters
    assert size.flops.layer_weights == layers * (attention + router + active * expert)
    parts = estimate(size, LARGE, Cluster(2, 8, H100), full_rows()).memory.parts
    assert parts["master weights and moments"] == pytest.approx(12 * parameters / 16 / 2**30)


@pytest.mark.slow
def test_a_mixture_takes_the_time_of_what_a_token_passes(mixtures, sizes):
    cluster = Cluster(4, 8, H100, network_gbps=3200)
    mixture, dense = (
        estimate(size, LARGE, cluster, full_rows(micro_batches=4)).seconds
        for size in (mixtures["qwen"], sizes["8B (Qwen3)"])
    )
    # 2.7 G active weights in the layers and small matrices against 6.9 G; norms and activations come on top.
    assert 0.3 < mixture.balanced / dense.balanced < 1.0
    assert mixtures["qwen"].moved_bytes < 4 * sizes["8B (Qwen3)"].moved_bytes


def test_the_sampler_levels_by_the_active_experts():
    dense = transformers.Qwen3Config(
        hidden_size=2048, intermediate_size=8 * 768, num_attention_heads=32, num_key_value_heads=4, head_dim=128
    )
    assert decoder_cost(QWEN3_30B_A3B) == decoder_cost(dense)


def late_long_examples():
    """Short examples but for a few, which fall anywhere."""
    lengths = np.full(4000, 60)
    lengths[np.random.default_rng(3).integers(0, 4000, 5)] = [3000, 3600, 900, 2000, 3900]
    return np.column_stack([np.full(4000, 20), np.ones(4000, dtype=int), lengths])


@pytest.mark.parametrize(("ranks", "budget", "batch"), [(2, 4096, 8), (16, 4096, 8), (2, 8192, 64)])
def test_memory_is_that_of_the_fullest_step_wherever_it_comes(sizes, ranks, budget, batch):
    counts, weights = late_long_examples(), (0.0, 1.0, 1.0)
    stage = Stage("stage", weights, OptimizationConfig(global_batch_size=batch, num_epochs=1))

    def planner_for(ranks, tokens):
        return stage.planner(
            counts,
            seed=1,
            micro_batch_tokens=tokens,
            data_ranks=ranks,
            cost=decoder_cost(SHAPES["8B (Qwen3)"]),
        )

    load = stage_load("stage", counts, weights, planner_for, most_steps=3)
    every = Fullest.of(stage_load("stage", counts, weights, planner_for, most_steps=10**6).rows_for(ranks, budget))
    assert load.fullest(ranks, budget) == every
    first = Fullest.of(load.rows_for(ranks, budget))
    assert first.rest_tokens < every.rest_tokens, "the first steps say too little"
    training = LARGE.model_copy(update={"micro_batch_tokens": budget})
    memory = estimate(sizes["8B (Qwen3)"], training, Cluster(1, ranks, H100), load).memory
    assert memory.parts["logits"] == pytest.approx(every.observed * 151936 * 12 / 2**30)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_not_planned_is_bounded_from_above(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    counts = np.column_stack([rng.integers(5, 90, 600), np.ones(600, dtype=int), rng.geometric(0.01, 600)])
    counts[:, 2] = counts[:, 2].clip(max=900)
    weights, ranks, budget = (0.0, 1.0, 1.0), int(rng.integers(1, 9)), int(rng.choice([1000, 2048, 8192]))
    stage = Stage("stage", weights, OptimizationConfig(global_batch_size=int(rng.choice([4, 16, 60])), num_epochs=1))

    def planner_for(ranks, tokens):
        return stage.planner(
            counts,
            seed=seed,
            micro_batch_tokens=tokens,
            data_ranks=ranks,
            cost=decoder_cost(SHAPES["8B (Qwen3)"]),
        )

    monkeypatch.setattr(load_module, "_MAX_PLANNED_EXAMPLES", 0)
    load = stage_load("stage", counts, weights, planner_for, most_steps=10**6, stops_prefix=True)
    every, bound = Fullest.of(load.rows_for(ranks, budget)), load.fullest(ranks, budget)
    assert bound.observed >= every.observed
    assert bound.rest_tokens >= every.rest_tokens
    assert bound.prefix_tokens >= every.prefix_tokens
    assert bound.rest_tokens <= budget


def test_the_guards_copy_lies_beside_the_state_and_decides_whether_a_stage_fits(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(1, 8, H100)
    load = replace(full_rows(), guard=GuardCopy(weight_bytes=4, tokens=16 * 700))
    guarded, plain = (estimate(size, LARGE, cluster, each) for each in (load, full_rows()))
    assert guarded.memory == plain.memory
    assert plain.guarding is None
    parts = guarded.guarding.parts
    assert parts["guard's copy of the model"] == pytest.approx(4 * size.parameters / 2**30)
    assert parts["guard's keys and values"] == pytest.approx(16 * 700 * 36 * 2 * 8 * 128 * 4 / 2**30)
    assert parts["master weights and moments"] == pytest.approx(12 * size.parameters / 8 / 2**30)
    assert "activations" not in parts
    small = replace(H100, memory_gib=guarded.guarding.total_gib - 1)
    assert not estimate(size, LARGE, replace(cluster, accelerator=small), load).fits


def test_adapters_lie_beside_the_frozen_weights(adapted):
    size = adapted["8B (Qwen3)"]
    parts = estimate(size, LORA, Cluster(1, 8, H100), full_rows()).memory.parts
    assert parts["weights, partitioned"] == pytest.approx(2 * (size.parameters + size.trained) / 8 / 2**30)
    assert parts["gradients"] == pytest.approx(4 * size.trained / 8 / 2**30)
    assert parts["master weights and moments"] == pytest.approx(12 * size.trained / 8 / 2**30)


def test_a_stopped_prefix_is_forward_alone_in_time_memory_and_traffic(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(4, 8, H100)
    plain = LARGE.model_copy(update={"gradient_checkpointing": False})

    def rows_for(ranks, micro_batch_tokens):
        each = np.full((ranks, 1), 8192)
        return [Rows(each, each * 8192, each // 8, each // 8, each * 7 // 8, (each * 7 // 8) ** 2)]

    stopped, exact = StageLoad("stage", 1, 8192, rows_for), full_rows(with_loss=1024)
    found, whole = (estimate(size, plain, cluster, load) for load in (stopped, exact))
    assert 0.41 < found.seconds.balanced / whole.seconds.balanced < 0.48
    assert found.memory.parts["activations"] == pytest.approx(whole.memory.parts["activations"] / 8)
    assert found.memory.parts["keys and values of what comes before"] == pytest.approx(
        2 * 7168 * size.key_value_bytes / 2**30
    )
    weights = size.parameters - 36 * (2 * 4096 + 2 * 128) - 4096
    assert (found.received_gib - whole.received_gib) * 2**30 == pytest.approx(31 / 32 * 2 * weights)


def test_a_step_that_takes_a_pass_for_each_segment_takes_so_many_times_as_long(sizes):
    size, cluster, shared = sizes["8B (Qwen3)"], Cluster(4, 8, H100), {"sequence_parallel_ranks": 2}
    for training in (LARGE, LARGE.model_copy(update=shared)):
        once, thrice = (
            estimate(size, training, cluster, replace(full_rows(with_loss=1024), passes=passes)) for passes in (1, 3)
        )
        assert 2.9 < thrice.seconds.compute / once.seconds.compute < 3
        assert 2 < thrice.received_gib / once.received_gib <= 3
        assert thrice.seconds.optimizer == once.seconds.optimizer
        assert thrice.memory == once.memory
        held = thrice.host.total_gib - once.host.total_gib
        assert held * 2**30 == pytest.approx(3 * 4 * size.parameters / 4), "of a node, a quarter of every gradient"
        ratio = once.seconds.total / thrice.seconds.total
        assert thrice.tokens_per_second == pytest.approx(ratio * once.tokens_per_second)


def test_the_smallest_cluster_is_one_that_groups_of_neighbours_divide(sizes):
    hpz = LARGE.model_copy(update={"zero": ZeroConfig(secondary_partition_ranks=16)})
    assert smallest_cluster(sizes["8B (Qwen3)"], hpz, Cluster(1, 8, H100), full_rows()) == 2


def test_ranks_that_share_rows_divide_activations_and_exchange_tokens(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(2, 8, H100)
    alone, shared, wide = (
        estimate(size, LARGE.model_copy(update={"sequence_parallel_ranks": ranks}), cluster, full_rows(8192))
        for ranks in (1, 4, 16)
    )
    assert shared.memory.parts["activations"] == pytest.approx(alone.memory.parts["activations"] / 4)
    assert shared.seconds.balanced == pytest.approx(alone.seconds.balanced / 4, rel=0.2)
    # 36 layers; 32 heads of 128 before and after attention, 8 each of keys and values; forward, again, and backward.
    of_token = 3 * 36 * 128 * 2 * (2 * 32 + 2 * 8)
    assert (shared.received_gib - alone.received_gib) * 2**30 == pytest.approx(8192 / 4 * 3 / 4 * of_token)
    # Sixteen ranks need each of the eight heads of keys and values twice.
    of_token += 3 * 36 * 128 * 2 * 2 * 8
    assert (wide.received_gib - alone.received_gib) * 2**30 == pytest.approx(8192 / 16 * 15 / 16 * of_token)
    assert wide.seconds.communication > shared.seconds.communication, "tokens cross the network"
    within, across = (
        estimate(size, LARGE.model_copy(update={"sequence_parallel_ranks": 4}), Cluster(nodes, each, H100), full_rows())
        for nodes, each in ((2, 8), (4, 6))
    )
    assert across.seconds.communication > within.seconds.communication, "every third group has ranks of two nodes"


def test_a_row_of_an_answer_is_on_one_of_the_ranks_that_share_it():
    rows = Rows(*(np.array([[value]]) for value in (4096, 4096**2, 600, 3000)))
    part = rows.part(8)
    assert [int(values[0, 0]) for values in (part.tokens, part.pairs, part.logits, part.observed)] == [
        512,
        4096**2 // 8,
        512,
        512,
    ]
    assert rows.part(2).logits.tolist() == [[600]]
    assert Fullest(3000, 4096).part(4) == Fullest(1024, 1024)
    assert rows.part(1) is rows


def test_sharing_rows_is_proposed_where_a_long_row_does_not_fit(sizes):
    size, cluster = sizes["8B (Qwen3)"], Cluster(1, 8, H100)
    lean = {"gradient_checkpointing": True, "logit_chunk_positions": 1024, "micro_batch_tokens": 262_144}
    training = LARGE.model_copy(update=lean)
    row = full_rows(262_144)
    now = estimate(size, training, cluster, row)
    assert not now.fits
    setting, helped = what_would_help(size, training, cluster, row, now)
    assert setting.startswith("training.sequence_parallel_ranks=")
    assert helped.fits
    refused = replace(row, may_share_rows=False)
    assert "sequence_parallel" not in str(what_would_help(size, training, cluster, refused, now))
    uneven = replace(size, num_heads=21)
    assert "sequence_parallel" not in str(what_would_help(uneven, training, cluster, row, now))


def test_inputs_on_the_host_and_blocks_in_chunks_take_less_memory_and_more_time(sizes):
    cluster, row = Cluster(2, 8, H100), full_rows(32_768)
    recomputed = LARGE.model_copy(update={"gradient_checkpointing": True})
    offloaded = recomputed.model_copy(update={"offload_activations": True})
    chunked = recomputed.model_copy(update={"mlp_chunk_tokens": 1024})
    size = sizes["8B (Qwen3)"]
    in_chunks = size_of(SHAPES["8B (Qwen3)"], chunked)
    now, on_host, by_chunk = (
        estimate(of, training, cluster, row)
        for of, training in ((size, recomputed), (size, offloaded), (in_chunks, chunked))
    )
    plain, offloading, chunking = (found.memory.parts["activations"] * 2**30 for found in (now, on_host, by_chunk))
    assert plain - offloading == pytest.approx(32_768 * 36 * 4096 * 2)
    # Of the block: gate, up, the activation and the product of both, in bfloat16; and its chunk of 1,024 tokens.
    of_token = 4 * 12_288 * 2
    assert plain - chunking == pytest.approx((32_768 - 1024) * of_token, rel=0.05)
    assert now.seconds.total < min(on_host.seconds.total, by_chunk.seconds.total)


def test_what_lies_on_the_host_is_counted_by_node(sizes):
    size, cluster, row = sizes["70B (Llama 3.1)"], Cluster(4, 8, H100), full_rows(8192)
    plain = LARGE.model_copy(update={"gradient_checkpointing": True})
    offloaded = plain.model_copy(
        update={"offload_activations": True, "zero": ZeroConfig(offload="cpu", offload_weights=True)}
    )
    on_device, on_host = (estimate(size, training, cluster, row).host for training in (plain, offloaded))
    assert list(on_device.parts) == ["snapshot of a checkpoint", "files of the exported model"]
    assert on_device.parts["snapshot of a checkpoint"] * 2**30 == pytest.approx(size.parameters / 4 * 12)
    of_node = {name: gib * 2**30 for name, gib in on_host.parts.items()}
    kept = ("master weights and moments", "gradients", "snapshot of a checkpoint")
    assert sum(of_node[name] for name in kept) == pytest.approx(size.parameters / 4 * 32)
    assert of_node["weights, partitioned"] == pytest.approx(size.parameters / 4 * 2)
    assert of_node["inputs of layers"] == 8 * 8192 * 80 * 8192 * 2
    assert of_node["files of the exported model"] == pytest.approx(8 * 5e9)


def test_every_rank_of_any_cluster_fills_one_file_of_the_exported_model(sizes):
    size = sizes["405B (Llama 3.1)"]
    few, many, precise = (
        estimate_export(size, LARGE.model_copy(update=changes), Cluster(nodes, 8, H100))
        for nodes, changes in ((16, {}), (64, {}), (64, {"export_precision": "float32"}))
    )
    assert many.files == -(-2 * size.parameters // (5 * 10**9)) == 163
    assert {few.rank_gib, many.rank_gib, precise.rank_gib} == {5e9 / 2**30}
    assert few.seconds > many.seconds, "more nodes write"
    assert precise.gib == 2 * many.gib
    small = estimate_export(sizes["8B (Qwen3)"], LARGE, Cluster(64, 8, H100))
    assert small.seconds > sizes["8B (Qwen3)"].parameters * 2 / 4 / 2e9, "only as many nodes write as there are files"


def test_counting_what_routers_choose_takes_a_forward_pass(mixtures):
    size, cluster = mixtures["qwen"], Cluster(4, 8, H100)
    row = full_rows(8192)
    plain, counted = (estimate(size, LARGE, cluster, each) for each in (row, replace(row, counts_routers=True)))
    assert counted.memory == plain.memory
    assert plain.seconds.balanced < counted.seconds.balanced < 4 / 3 * plain.seconds.balanced
    gathered = size.parameters * 2 * 31 / 32 / 2**30
    assert counted.received_gib - plain.received_gib == pytest.approx(gathered, rel=0.05)


def test_a_row_of_32k_tokens_fits_a_group_of_eight(sizes):
    """A model of 1.5 B parameters, whose vocabulary alone would take 57 GB of logits at every position."""
    small = size_of(
        transformers.Qwen2Config(
            vocab_size=151_936,
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )
    plain = TrainingConfig(micro_batch_tokens=32_768)
    shared = plain.model_copy(
        update={"gradient_checkpointing": True, "sequence_parallel_ranks": 4, "logit_chunk_positions": 1024}
    )
    cluster = Cluster(1, 8, H100)
    alone, together = (estimate(small, training, cluster, full_rows(32_768)) for training in (plain, shared))
    assert not alone.fits
    assert together.memory.total_gib < 20


def test_an_unknown_gpu_is_named():
    with pytest.raises(ConfigError, match="h100-80g"):
        find_accelerator("h1000")


def test_what_is_no_decoder_is_refused():
    with pytest.raises(Exception, match="cannot be built"):
        size_of(transformers.ViTConfig())
