"""The architectures of the shipped configurations, at reduced size: both stages, packed, against the reference."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer

from sftkey_dist.config import load_config
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import LoraConfig, TrainingConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.evaluation.generation import Decoding
from sftkey_dist.evaluation.generation.local import LocalGenerator
from sftkey_dist.sampler.order import shuffled_indices
from sftkey_dist.training.job import StageJob
from tests.distributed.harness import make_model, make_store, metrics, run_ranks, train
from tests.distributed.reference import train_reference
from tests.stage_job import make_stage_job, with_optimization

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
ARCHITECTURES = {
    "qwen3-untied": transformers.Qwen3Config(**SMALL, num_hidden_layers=2, head_dim=8, tie_word_embeddings=False),
    "qwen2-untied": transformers.Qwen2Config(**SMALL, num_hidden_layers=2, tie_word_embeddings=False),
    "qwen2-tied": transformers.Qwen2Config(**SMALL, num_hidden_layers=2, tie_word_embeddings=True),
    "qwen2-sliding": transformers.Qwen2Config(
        **SMALL, num_hidden_layers=2, use_sliding_window=True, sliding_window=48, max_window_layers=1
    ),
    "smollm3": transformers.SmolLM3Config(**SMALL, num_hidden_layers=4, no_rope_layers=[1, 1, 1, 0], pad_token_id=0),
    "qwen3-experts": transformers.Qwen3MoeConfig(
        **SMALL, num_hidden_layers=2, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
    "mixtral": transformers.MixtralConfig(**SMALL, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2),
    "gemma2": transformers.Gemma2Config(
        **SMALL,
        num_hidden_layers=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=48,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=2.0,
    ),
    "gpt-oss": transformers.GptOssConfig(
        **SMALL, num_hidden_layers=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=48
    ),
    "llama3": transformers.LlamaConfig(
        **SMALL,
        num_hidden_layers=2,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    ),
}
EXPERTS = ("qwen3-experts", "mixtral", "gpt-oss")
"""Ranks route their tokens to different experts, three ranks more than two."""
SHIPPED = {
    "qwen3_8b": "qwen3-untied",
    "qwen2_5_7b": "qwen2-untied",
    "qwen2_5_3b": "qwen2-tied",
    "qwen2_5_1_5b": "qwen2-tied",
    "smollm3_3b": "smollm3",
    "qwen2_5_32b": "qwen2-untied",
    "llama3_1_70b": "llama3",
}
NUM_STEPS, BATCH, RATE = 4, 6, 3e-3
ROUTER_LOSS_WEIGHT = 0.5
FULL = (0.0, *[1.0] * 7)
KEY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_model):
    """A folder with random weights for every architecture."""
    root = tmp_path_factory.mktemp("architectures")
    return {name: make_model(root / name, config, tiny_model) for name, config in ARCHITECTURES.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory, contract, tiny_model):
    return make_store(tmp_path_factory.mktemp("store"), contract, tiny_model)


@pytest.fixture(scope="module")
def trained(models, store, tmp_path_factory):
    """Both stages of every architecture, on two ranks or three, one after the other."""
    root = tmp_path_factory.mktemp("trained")
    stages = {}
    for name, model in models.items():
        full = job(model, store, root / f"{name}-full", FULL)
        stages[name] = (full, job(full.stage_dir / "model", store, root / f"{name}-key", KEY))
    for number, names in ((2, ARCHITECTURES.keys() - EXPERTS), (3, EXPERTS)):
        run_ranks(number, train, [stage for name in sorted(names) for stage in stages[name]], None)
    return stages


def job(model_dir, store, stage_dir, weights) -> StageJob:
    return make_stage_job(
        stage_dir,
        model_dir,
        store.path,
        weights,
        optimization=OptimizationConfig(
            global_batch_size=BATCH, max_steps=NUM_STEPS, look_ahead_steps=1, learning_rate=RATE, warmup_ratio=0.25
        ),
        training=TrainingConfig(micro_batch_tokens=700),
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_stages_equal_the_reference_and_the_export_generates(name, trained, store):
    order = shuffled_indices(len(store), 5, 0)[: NUM_STEPS * BATCH].reshape(NUM_STEPS, BATCH)
    steps = [[store.example(index) for index in step] for step in order]
    for stage in trained[name]:
        losses, norms, final = train_reference(stage.model_dir, steps, stage.stage.weights, RATE, warmup_steps=1)
        records = metrics(stage)
        assert [record["loss"] for record in records] == pytest.approx(losses, rel=1e-4)
        assert [record["grad_norm"] for record in records] == pytest.approx(norms, rel=1e-3)
        exported = transformers.AutoModelForCausalLM.from_pretrained(stage.stage_dir / "model").state_dict()
        assert set(final) <= set(exported)
        assert max(float((exported[key] - final[key]).abs().max()) for key in final) < 1e-3
    assert_generates(trained[name][-1].stage_dir / "model")


@pytest.mark.parametrize("name", EXPERTS)
def test_routers_are_balanced_over_all_tokens_of_a_step_as_transformers_balances_them(name, models, store, tmp_path):
    """Of one example after another in the reference; here in two rows a rank, and in rows that two ranks share."""
    order = shuffled_indices(len(store), 5, 0)[: NUM_STEPS * BATCH].reshape(NUM_STEPS, BATCH)
    steps = [[store.example(index) for index in step] for step in order]
    losses, norms, final = train_reference(
        models[name], steps, FULL, RATE, warmup_steps=1, router_loss_weight=ROUTER_LOSS_WEIGHT
    )
    jobs = [
        with_optimization(job(models[name], store, tmp_path / f"{label}", FULL), router_loss_weight=ROUTER_LOSS_WEIGHT)
        for label in ("rows", "parts", "adapters")
    ]
    jobs = [
        stage.model_copy(update={"training": stage.training.model_copy(update=settings)})
        for stage, settings in zip(
            jobs,
            (
                {"micro_batch_tokens": 400, "logit_chunk_positions": 50},
                {"sequence_parallel_ranks": 2, "gradient_checkpointing": True},
                {"lora": LoraConfig(rank=4, target_modules=("q_proj", "o_proj"))},
            ),
            strict=True,
        )
    ]
    run_ranks(2, train, jobs, None)
    *whole, adapted = jobs
    assert metrics(adapted)[0]["loss"] == pytest.approx(losses[0], rel=1e-4), "adapters begin with no effect"
    for stage in whole:
        records = metrics(stage)
        assert [record["loss"] for record in records] == pytest.approx(losses, rel=1e-4)
        assert [record["grad_norm"] for record in records] == pytest.approx(norms, rel=1e-3)
        assert all(record["router_loss"] > 1.5 for record in records), "1 for each of the two experts of a token"
        exported = transformers.AutoModelForCausalLM.from_pretrained(stage.stage_dir / "model").state_dict()
        assert max(float((exported[key] - final[key]).abs().max()) for key in final) < 1e-3


def test_what_other_kernels_compute_trains_in_bfloat16_as_in_float32_to_its_accuracy(models, store, tmp_path, trained):
    rounded = {
        name: job(models[name], store, tmp_path / name, FULL).model_copy(update={"precision": "bfloat16"})
        for name in ("gemma2", "gpt-oss")
    }
    in_both = [
        with_optimization(
            job(models["gpt-oss"], store, tmp_path / f"balanced-{precision}", FULL),
            router_loss_weight=ROUTER_LOSS_WEIGHT,
        ).model_copy(update={"precision": precision})
        for precision in ("float32", "bfloat16")
    ]
    run_ranks(2, train, [*rounded.values(), *in_both], None)
    for key in ("loss", "router_loss"):
        exact, found = ([record[key] for record in metrics(stage)] for stage in in_both)
        assert found == pytest.approx(exact, rel=0.02)
    assert_generates(in_both[1].stage_dir / "model")
    for name, stage in rounded.items():
        exact = [record["loss"] for record in metrics(trained[name][0])]
        assert [record["loss"] for record in metrics(stage)] == pytest.approx(exact, rel=0.02)
        exported = load_file(stage.stage_dir / "model" / "model.safetensors")
        assert {value.dtype for value in exported.values()} == {torch.bfloat16}
        assert_generates(stage.stage_dir / "model")


def test_a_mixture_of_experts_trains_with_default_adapters_in_both_precisions(models, store, tmp_path):
    """What is exported has changed in the attention alone, and generates."""
    stages = [
        job(models["mixtral"], store, tmp_path / precision, FULL).model_copy(
            update={"precision": precision, "training": TrainingConfig(micro_batch_tokens=700, lora=LoraConfig(rank=4))}
        )
        for precision in ("float32", "bfloat16")
    ]
    run_ranks(2, train, stages, None)
    exact, rounded = ([record["loss"] for record in metrics(stage)] for stage in stages)
    assert rounded == pytest.approx(exact, rel=0.02)
    start = load_file(models["mixtral"] / "model.safetensors")
    for stage in stages:
        exported = load_file(stage.stage_dir / "model" / "model.safetensors")
        dtype = getattr(torch, stage.precision)
        assert {value.dtype for value in exported.values()} == {dtype}
        changed = {name for name, value in exported.items() if not torch.equal(value, start[name].to(dtype))}
        assert {name.split(".")[-2] for name in changed} == {"q_proj", "k_proj", "v_proj", "o_proj"}
        assert_generates(stage.stage_dir / "model")


def assert_generates(folder):
    """The generator's first token is the most likely one of a plain forward pass."""
    (memo,) = generate_memos("test", 1, seed=0)
    ((output,),) = LocalGenerator(folder, PromptConfig(), trust_remote_code=False).generate([memo], Decoding(1))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = PromptEncoder(tokenizer, PromptConfig())
    ids = torch.tensor(prompts.ids([prompts.text(memo)]))
    with torch.no_grad():
        first = int(transformers.AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits[0, -1].argmax())
    assert output.text == ("" if first == prompts.end_of_turn_id else tokenizer.decode([first]))


def test_every_shipped_model_has_its_architecture_here():
    shipped = {file.stem for file in CONFIGS.glob("models/*.yaml")} - {"smollm2_135m"}
    assert shipped == set(SHIPPED)
    assert set(SHIPPED.values()) <= set(ARCHITECTURES)
    for name in shipped:
        config = load_config([CONFIGS / "gsm8k.yaml", CONFIGS / "models" / f"{name}.yaml"])
        assert config.cluster.gpus_per_worker == 1
        assert config.training.gradient_checkpointing
