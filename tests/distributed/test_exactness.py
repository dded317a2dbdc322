"""The trainer against a plain-PyTorch reference, and against itself on other ranks, budgets and interruptions."""

import gzip
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing import ProcessRaisedException
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, set_seed

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.strategy import MuonConfig, OptimizationConfig
from sftkey_dist.config.training import LoraConfig, TrainingConfig, ZeroConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.evaluation.generation import Decoding
from sftkey_dist.evaluation.generation.local import LocalGenerator
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.models.special_tokens import add_special_tokens
from sftkey_dist.run_dir import StageDir
from sftkey_dist.sampler import CostModel
from sftkey_dist.sampler.order import shuffled_indices
from sftkey_dist.training.job import StageJob
from tests.distributed.harness import make_store, metrics, run_ranks, train, weights_of
from tests.distributed.reference import train_reference
from tests.stage_job import make_stage_job, with_optimization

pytestmark = pytest.mark.long

NUM_STEPS, BATCH, WARMUP_RATIO, RATE, MAX_GRAD_NORM = 9, 8, 0.2, 5e-3, 0.5
PARTITIONED = {"micro_batch_tokens": 700, "checkpoint_every_steps": 7, "zero": ZeroConfig(max_gathered_gib=0)}
STEP_PHASES = {"data", "forward", "backward", "metrics", "optimizer"}
FULL = (0.0, *[1.0] * 7)
KEY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory, contract, tiny_model) -> EncodedStore:
    return make_store(tmp_path_factory.mktemp("store"), contract, tiny_model)


@pytest.fixture
def make_job(store, tiny_model, tmp_path):
    def make(name: str, model_dir: Path = tiny_model, weights=FULL, **training) -> StageJob:
        return make_stage_job(
            tmp_path / name,
            model_dir,
            store.path,
            weights,
            optimization=OptimizationConfig(
                global_batch_size=BATCH,
                num_epochs=9,
                max_steps=NUM_STEPS,
                look_ahead_steps=1,  # the reference takes the shuffle's runs as they are
                learning_rate=RATE,
                warmup_ratio=WARMUP_RATIO,
                max_grad_norm=MAX_GRAD_NORM,
            ),
            training=TrainingConfig(**PARTITIONED | training),
        )

    return make


def run(world_size: int, *jobs: StageJob, stop_after_steps: int | None = None) -> None:
    """Train jobs one after another in one process group."""
    run_ranks(world_size, train, jobs, stop_after_steps)


def reference(store: EncodedStore, model_dir: Path, weights, batch: int = BATCH, num_steps: int = NUM_STEPS, **options):
    """Members of each step: consecutive runs of the epoch's shuffle, the last one of an epoch shorter."""
    members: list[list[int]] = []
    for epoch in range(9):
        order = shuffled_indices(len(store), 5, epoch).tolist()
        members += [order[i : i + batch] for i in range(0, len(order), batch)]
    of_rows = store.loss_weights
    steps = [
        [(*store.example(index), 1.0 if of_rows is None else float(of_rows[index])) for index in step]
        for step in members[:num_steps]
    ]
    warmup = math.ceil(WARMUP_RATIO * num_steps)
    return train_reference(model_dir, steps, weights, RATE, warmup_steps=warmup, max_grad_norm=MAX_GRAD_NORM, **options)


def assert_same_training(job: StageJob, losses, norms, final, loss_tolerance=1e-4, weight_tolerance=1e-3):
    records = metrics(job)
    assert [record["loss"] for record in records] == pytest.approx(losses, rel=loss_tolerance)
    assert [record["grad_norm"] for record in records] == pytest.approx(norms, rel=1e-3)
    trained = weights_of(job.stage_dir / "model")
    largest = max(float((trained[name] - final[name]).abs().max()) for name in trained)
    assert largest < weight_tolerance, f"weights differ by {largest}"


def records_of(job: StageJob):
    losses, norms = ([record[key] for record in metrics(job)] for key in ("loss", "grad_norm"))
    return losses, norms, weights_of(job.stage_dir / "model")


def test_both_stages_equal_the_reference_on_one_and_two_ranks(store, make_job, tiny_model):
    stage_1 = reference(store, tiny_model, FULL)
    jobs = {world_size: make_job(f"full-{world_size}") for world_size in (1, 2)}
    for world_size, job in jobs.items():
        run(world_size, job)
        assert_same_training(job, *stage_1)
    assert stage_1[0][-1] < 0.9 * stage_1[0][0], "nothing was learned, so equality would show little"
    assert any(norm > MAX_GRAD_NORM for norm in stage_1[1]), "clipping was never needed, so it was not compared"

    hand_off = jobs[2].stage_dir / "model"
    stage_2 = reference(store, hand_off, KEY)
    for world_size in (1, 2):
        job = make_job(f"key-{world_size}", hand_off, KEY)
        run(world_size, job)
        assert_same_training(job, *stage_2)


def test_a_stopped_prefix_equals_a_detached_cache_and_is_another_objective(store, make_job, tiny_model):
    expected = reference(store, tiny_model, KEY, stop_prefix=True)
    exact = make_job("exact", weights=KEY)
    stopped = [
        job.model_copy(update={"stage": replace(job.stage, stop_gradient_prefix=True)})
        for name, training in (("partitioned", {}), ("gathered", {"zero": ZeroConfig()}))
        for job in (make_job(f"stopped-{name}", weights=KEY, **training),)
    ]
    run(2, exact, *stopped)
    for job in stopped:
        assert_same_training(job, *expected)
    (first, *_), (same, *_) = metrics(exact), metrics(stopped[0])
    assert same["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert same["grad_norm"] < 0.99 * first["grad_norm"], "part of the gradient is left out"
    assert set(same["segments"]) == {"answer"}


def test_token_budget_attention_recomputation_observation_gathering_and_offload_change_nothing(make_job):
    plain = make_job("plain", weights=KEY)
    variants = [
        make_job("large-rows", weights=KEY, micro_batch_tokens=4096),
        make_job("observed", weights=KEY, segment_metrics_every_steps=1, profile_steps=(1,)),
        make_job("recomputed", weights=KEY, gradient_checkpointing=True, mlp_chunk_tokens=100),
        make_job("chunked", weights=KEY, logit_chunk_positions=37, segment_metrics_every_steps=1),
        make_job("chunked-blocks", weights=KEY, mlp_chunk_tokens=100),
        make_job("gathered", weights=KEY, zero=ZeroConfig()),
        make_job("small-buckets", weights=KEY, zero=ZeroConfig(max_gathered_gib=0, reduce_bucket_elements=1000)),
        make_job("small-updates", weights=KEY, zero=ZeroConfig(max_gathered_gib=0, sub_group_elements=1000)),
        make_job("offloaded", weights=KEY, zero=ZeroConfig(offload="cpu", max_gathered_gib=0)),
        make_job("dense-mask", weights=KEY).model_copy(update={"attention": "sdpa"}),
    ]
    run(2, plain, *variants)
    for job in variants:
        assert_same_training(job, *records_of(plain), loss_tolerance=1e-5, weight_tolerance=1e-4)
    traces = sorted((variants[1].stage_dir / "traces").iterdir())
    assert traces == [StageDir(variants[1].stage_dir).trace(rank, 1) for rank in (0, 1)]
    events = json.loads(gzip.decompress(traces[0].read_bytes()))["traceEvents"]
    assert any("backward" in event["name"].lower() for event in events)


def test_a_rank_without_examples_takes_part_with_untied_embeddings(store, make_job, tiny_model, tmp_path):
    """One example a step on two ranks: one of them always runs a dummy row (0 against N loss tokens)."""
    untied = untie(tiny_model, tmp_path / "untied")
    jobs = [
        with_optimization(job, global_batch_size=1)
        for job in (make_job("one-example", untied, KEY), make_job("chunks", untied, KEY, logit_chunk_positions=2))
    ]
    run(2, *jobs)
    for job in jobs:
        assert_same_training(job, *reference(store, untied, KEY, batch=1))


ADAPTERS = {
    "low-rank": LoraConfig(rank=4, alpha=16.0, rank_stabilized=True),
    "decomposed": LoraConfig(rank=4, alpha=32.0, weight_decomposed=True),
}


def adapter_of_peft(lora: LoraConfig):
    keys = {"r": lora.rank, "lora_alpha": lora.alpha, "use_rslora": lora.rank_stabilized}

    def adapt(model):
        set_seed(5)
        config = peft.LoraConfig(
            task_type="CAUSAL_LM", target_modules="all-linear", use_dora=lora.weight_decomposed, **keys
        )
        return peft.get_peft_model(model, config)

    return adapt


def test_adapters_train_like_peft_alone_and_are_merged_into_the_exported_model(store, make_job, tiny_model):
    num_steps = 6

    def job(name, *start, **training):
        return with_optimization(make_job(name, *start, checkpoint_every_steps=4, **training), max_steps=num_steps)

    whole = {
        world_size: {kind: job(f"{kind}-{world_size}", lora=lora) for kind, lora in ADAPTERS.items()}
        for world_size in (1, 2)
    }
    broken = {kind: job(f"{kind}-broken", lora=lora) for kind, lora in ADAPTERS.items()}
    decomposed = ADAPTERS["decomposed"]
    others = [
        # With dropout, the base layer is applied to what it leaves, outside of its own forward pass.
        job("dropped", lora=decomposed.model_copy(update={"dropout": 1e-9})),
        job("shared", lora=decomposed, sequence_parallel_ranks=2, zero=ZeroConfig()),
    ]
    run(1, *whole[1].values())
    run(2, *whole[2].values(), *others)
    run(2, *broken.values(), stop_after_steps=4)
    run(2, *broken.values())
    start, models = weights_of(tiny_model), {kind: each.stage_dir / "model" for kind, each in whole[2].items()}
    for kind, lora in ADAPTERS.items():
        expected = reference(store, tiny_model, FULL, num_steps=num_steps, adapt=adapter_of_peft(lora))
        assert expected[0][-1] < expected[0][0] - 0.05, "nothing was learned, so equality would show little"
        for each in (whole[1][kind], whole[2][kind], *(others if kind == "decomposed" else ())):
            assert_same_training(each, *expected)
        assert_same_files(broken[kind], whole[2][kind], "metrics.jsonl", "model/model.safetensors", ADAPTER)
        assert_adapter_is_of_the_model(whole[2][kind])
        trained = weights_of(models[kind])
        changed = {name for name in trained if not torch.equal(trained[name], start[name])}
        assert changed == {name for name in start if "_proj." in name}
    second = job("key", models["decomposed"], KEY, lora=decomposed)
    run(2, second)
    of_second = {"num_steps": num_steps, "adapt": adapter_of_peft(decomposed)}
    assert_same_training(second, *reference(store, second.model_dir, KEY, **of_second))
    assert_adapter_is_of_the_model(second)


ADAPTER = "adapter/adapter_model.safetensors"


def assert_same_files(job: StageJob, other: StageJob, *files: str) -> None:
    for file in files:
        assert (job.stage_dir / file).read_bytes() == (other.stage_dir / file).read_bytes(), file


@torch.inference_mode()
def assert_adapter_is_of_the_model(job: StageJob) -> None:
    """What peft reads beside a model computes as it does, and merges to it."""
    base, model = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (job.model_dir, job.stage_dir / "model")
    )
    adapted, ids = peft.PeftModel.from_pretrained(base, job.stage_dir / "adapter"), torch.arange(40)[None]
    torch.testing.assert_close(adapted(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4, rtol=0)
    exported = weights_of(job.stage_dir / "model")
    for name, weight in adapted.merge_and_unload().named_parameters():
        torch.testing.assert_close(weight.detach(), exported[name], atol=1e-6, rtol=0)


def test_muon_updates_matrices_as_the_reference_on_any_ranks_and_goes_on_after_an_interruption(
    store, make_job, tiny_model
):
    muon = MuonConfig(learning_rate_ratio=5, momentum=0.9)

    def job(name: str, **zero) -> StageJob:
        updates = ZeroConfig(max_gathered_gib=0, sub_group_elements=20_000, **zero)
        return with_optimization(make_job(name, zero=updates), muon=muon)

    whole, alone, *broken = map(job, ("whole", "alone", "broken-2", "broken-1"))
    others = [job("offloaded", offload="cpu", offload_weights=True), job("hpz", secondary_partition_ranks=2)]
    run(2, whole, *others)
    run(1, alone)
    run(2, *broken, stop_after_steps=7)
    run(2, broken[0])
    run(1, broken[1])
    expected = reference(store, tiny_model, FULL, muon=(muon.learning_rate_ratio, muon.momentum))
    assert any(norm > MAX_GRAD_NORM for norm in expected[1]), "clipping was never needed, so it was not compared"
    for done in (whole, alone, *others, *broken):
        assert_same_training(done, *expected)
    for done in (alone, broken[1]):  # which they would not be, were updates made orthogonal in half precision
        assert_same_training(done, *records_of(whole), loss_tolerance=1e-5, weight_tolerance=1e-4)
    assert_same_files(broken[0], whole, "metrics.jsonl", "model/model.safetensors")


def untie(model_dir: Path, out: Path) -> Path:
    """The same model with an output projection of its own."""
    config = AutoConfig.from_pretrained(model_dir, tie_word_embeddings=False)
    set_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(out)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(out)
    return out


def test_tags_as_special_tokens_train_like_the_reference_and_reach_generation(tmp_path, tiny_model, make_job):
    contract = ResponseContract(special_token_tags=True)
    model_dir = tmp_path / "extended"
    add_special_tokens(tiny_model, model_dir, contract.special_tokens)
    store = make_store(tmp_path / "store", contract, model_dir)
    num_steps = 20  # until it has learned to begin with the tag
    job = make_job("special", model_dir).model_copy(update={"store_dir": store.path})
    job = with_optimization(job, max_steps=num_steps)
    run(2, job)
    assert_same_training(job, *reference(store, model_dir, FULL, num_steps=num_steps))
    exported = job.stage_dir / "model"
    opening = load_tokenizer(exported).convert_tokens_to_ids("<Thinking>")
    embeddings = [weights_of(folder)["model.embed_tokens.weight"][opening] for folder in (model_dir, exported)]
    assert not torch.equal(*embeddings), "the tag's own row was trained"
    memo = next(generate_memos("test", 1, seed=0))
    ((output,),) = LocalGenerator(exported, PromptConfig(), trust_remote_code=False).generate([memo], Decoding(4))
    assert output.text.startswith("<Thinking>"), "the tag is one token, generated and not skipped in the text"


def test_segments_a_key_stage_does_not_train_are_measured_now_and_then(make_job):
    job = make_job("watched", weights=KEY, segment_metrics_every_steps=4)
    run(2, job)
    observed = [record["step"] for record in metrics(job) if "reasoning" in record["segments"]]
    assert observed == [0, 4, 8]
    assert all(record["segments"]["answer"]["tokens"] == record["loss_tokens"] for record in metrics(job))


def test_the_time_of_every_step_is_split_by_phase(make_job):
    job = make_job("timed", collectives_every_steps=4)
    run(2, job)
    timings = [json.loads(line) for line in (job.stage_dir / "timings.jsonl").read_text().splitlines()]
    assert len(timings) == NUM_STEPS
    for timing in timings:
        phases = timing["phase_seconds"]
        within_step = sum(seconds for phase, seconds in phases.items() if phase in STEP_PHASES)
        assert 0.5 * timing["seconds"] < within_step <= timing["seconds"]
        assert set(phases) >= STEP_PHASES
        assert ("checkpoint" in phases) == (timing["step"] in (6, NUM_STEPS - 1))
        assert timing["peak_memory_gib"] > 0
    collectives = {timing["step"]: timing["collective_seconds"] for timing in timings if "collective_seconds" in timing}
    assert list(collectives) == [3, 7]
    for step, seconds in collectives.items():
        assert 0 < seconds < timings[step]["watched_seconds"] < timings[step]["seconds"]
        assert 0 < timings[step]["watch_cost_seconds"] < timings[step]["seconds"]


def test_planned_denominators_are_the_counts_that_the_ranks_saw(store, make_job):
    """Counted on each of two ranks, summed by a collective, against the plan made without one."""
    job = make_job("counted", segment_metrics_every_steps=1)
    run(2, job)
    planner = job.stage.planner(
        store.segment_counts,
        seed=job.seed,
        micro_batch_tokens=job.training.micro_batch_tokens,
        data_ranks=2,
        cost=CostModel(1, 0),
    )
    for record, plan in zip(metrics(job), planner.plans(), strict=True):
        counted = {name: segment["tokens"] for name, segment in record["segments"].items()}
        planned = dict(zip(store.segment_names, plan.segment_counts, strict=True))
        assert {**counted, "prompt": planned["prompt"]} == planned
        assert record["loss_tokens"] == plan.loss_weight


def test_resumed_stage_is_the_uninterrupted_one_byte_for_byte_and_on_other_ranks_to_float_error(make_job):
    updates = ZeroConfig(max_gathered_gib=0, sub_group_elements=20_000)  # several for each group of parameters
    whole, *all_broken = (make_job(name, zero=updates) for name in ("whole", "broken-2", "broken-1"))
    run(2, whole)
    run(2, *all_broken, stop_after_steps=7)
    for world_size_after, broken in zip((2, 1), all_broken, strict=True):
        assert not (broken.stage_dir / "model").exists()
        run(world_size_after, broken)
        assert len(metrics(broken)) == NUM_STEPS
        if world_size_after == 2:
            assert (broken.stage_dir / "metrics.jsonl").read_bytes() == (whole.stage_dir / "metrics.jsonl").read_bytes()
            weights_file = Path("model", "model.safetensors")
            assert (broken.stage_dir / weights_file).read_bytes() == (whole.stage_dir / weights_file).read_bytes()
        else:
            assert_same_training(broken, *records_of(whole), loss_tolerance=1e-5, weight_tolerance=1e-4)


def test_exported_model_stops_where_training_taught_it_to(make_job):
    job = with_optimization(make_job("short"), max_steps=1)
    run(1, job)
    ends = GenerationConfig.from_pretrained(job.stage_dir / "model").eos_token_id
    assert ends[0] == 7


def test_missing_weights_are_refused_not_drawn_at_random(make_job, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "torn")
    weights = load_file(tmp_path / "torn" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "torn" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ProcessRaisedException, match=r"ModelError.*1 weights.*up_proj"):
        run(1, make_job("torn", tmp_path / "torn"))


def test_mean_of_micro_batch_means_would_differ(store):
    """The control: on this data the naive normalisation is another number, so the tests above can fail."""
    counts = [[int(store.segment_counts[i, 3]) for i in half] for half in (range(4), range(4, 8))]
    nll = [[float(i + 1) * n for i, n in enumerate(half)] for half in counts]
    means = [sum(values) / sum(half) for values, half in zip(nll, counts, strict=True)]
    whole = sum(map(sum, nll)) / sum(map(sum, counts))
    assert sum(means) / 2 != pytest.approx(whole, rel=1e-4)
