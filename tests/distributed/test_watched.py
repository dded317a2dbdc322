"""What is watched while a stage trains: held-out examples, the guard, and non-finite losses and gradients."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing import ProcessRaisedException
from transformers import AutoModelForCausalLM

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import LoraConfig, TrainingConfig, ZeroConfig
from sftkey_dist.config.validation import GuardConfig, ValidationConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.held_out import held_out_indices
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.training.job import GuardJob, StageJob
from tests.distributed.harness import make_store, metrics, run_ranks, train, weights_of
from tests.stage_job import make_stage_job

KEY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NUM_HELD_OUT, NUM_STEPS = 12, 10
DEFAULTS = {"global_batch_size": 4, "num_epochs": 9, "max_steps": NUM_STEPS, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def store(tmp_path_factory, contract, tiny_model) -> EncodedStore:
    return make_store(tmp_path_factory.mktemp("store"), contract, tiny_model)


@pytest.fixture
def make_job(store, tiny_model, contract, tmp_path):
    def make(
        name: str,
        model_dir: Path = tiny_model,
        guard: GuardConfig | None = None,
        answer_check: str = "exact",
        **optimization,
    ) -> StageJob:
        settings = EvaluationConfig(max_new_tokens=4, batch_size=2)
        assessment = EvaluationSettings(
            Form.TAGGED, contract, PromptConfig(), settings, {"": {"answer": answer_check}}, 0, False
        )
        return make_stage_job(
            tmp_path / name,
            model_dir,
            store.path,
            KEY,
            optimization=OptimizationConfig(
                **{"global_batch_size": 4, "num_epochs": 9, "max_steps": NUM_STEPS, "learning_rate": 3e-3}
                | optimization
            ),
            training=TrainingConfig(
                micro_batch_tokens=700, checkpoint_every_steps=4, zero=ZeroConfig(max_gathered_gib=0)
            ),
            validation=ValidationConfig(num_examples=NUM_HELD_OUT, every_steps=5, guard=guard),
            guard=GuardJob(settings=guard, assessment=assessment) if guard else None,
        )

    return make


def validation(job: StageJob) -> list[dict]:
    return [json.loads(line) for line in (job.stage_dir / "validation.jsonl").read_text().splitlines()]


def test_held_out_nll_equals_plain_pytorch_on_any_ranks_and_no_step_trains_on_it(store, make_job, tiny_model):
    jobs = {world_size: make_job(f"ranks-{world_size}") for world_size in (1, 2)}
    for world_size, job in jobs.items():
        run_ranks(world_size, train, [job])
    held_out = held_out_indices(store.hashes, NUM_HELD_OUT, seed=5)
    assert len(held_out) == NUM_HELD_OUT
    records = {world_size: validation(job) for world_size, job in jobs.items()}
    assert [record["step"] for record in records[2]] == [0, 5, NUM_STEPS]
    answer, reasoning = store.segment_names.index("answer"), store.segment_names.index("reasoning")
    for number, folder in ((0, tiny_model), (2, jobs[2].stage_dir / "model")):
        measured = records[2][number]["validation"]
        assert measured["loss"] == pytest.approx(plain_nll(folder, store, held_out, answer), rel=1e-5)
        assert measured["segments"]["reasoning"]["nll"] == pytest.approx(
            plain_nll(folder, store, held_out, reasoning), rel=1e-5
        )
    for one, two in zip(*records.values(), strict=True):
        assert one["validation"]["loss"] == pytest.approx(two["validation"]["loss"], rel=1e-4)
    epoch_tokens = int(store.segment_counts.sum() - store.segment_counts[held_out].sum())
    steps_per_epoch = -(-(len(store) - NUM_HELD_OUT) // 4)
    long = make_job("an-epoch", max_steps=steps_per_epoch, learning_rate=1e-6)
    run_ranks(2, train, [long])
    assert sum(record["tokens"] for record in metrics(long)) == epoch_tokens


def plain_nll(model_dir: Path, store: EncodedStore, indices: np.ndarray, segment: int) -> float:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    total, count = 0.0, 0
    for index in indices:
        ids, segments = store.example(int(index))
        with torch.no_grad():
            log_probabilities = torch.log_softmax(model(input_ids=torch.tensor(ids)[None]).logits[0], dim=-1)
        for position in np.flatnonzero(segments == segment):
            total -= float(log_probabilities[position - 1, ids[position]])
            count += 1
    return total / count


def test_guard_keeps_the_best_model_or_the_last_and_stops_early(make_job, tiny_model):
    """An untrained model scores 0 always, so the best is the first: the weights that the stage started from."""
    best = make_job("best", guard=GuardConfig(every_steps=3, num_examples=5))
    last = make_job("last", guard=GuardConfig(every_steps=3, num_examples=5, keep="last"))
    patient = make_job("patient", guard=GuardConfig(every_steps=2, num_examples=5, patience=2))
    run_ranks(2, train, [best, last, patient])
    scored = [record["step"] for record in validation(best) if "guard" in record]
    assert scored == [0, 3, 6, 9, 10]
    assert all(record["guard"]["n"] == 5 for record in validation(best) if "guard" in record)
    start = load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(value, start[name]) for name, value in weights_of(best.stage_dir / "model").items())
    changed = weights_of(last.stage_dir / "model")
    assert any(not torch.equal(value, start[name]) for name, value in changed.items())
    assert len(metrics(patient)) == 4, "two evaluations without gain, two steps apart"


def test_a_teacher_forced_guard_generates_nothing_and_keeps_its_best_model(store, make_job, tiny_model):
    """Its accuracy is the share of the answer's tokens that are the likeliest, by plain PyTorch on the kept model."""
    guard = GuardConfig(every_steps=3, num_examples=NUM_HELD_OUT, signal="teacher_forced")
    job = make_job("forced", guard=guard)
    run_ranks(2, train, [job])
    scores = {record["step"]: record["guard"] for record in validation(job) if "guard" in record}
    assert list(scores) == [0, 3, 6, 9, 10]
    best = max(scores.values(), key=lambda found: found["score"])
    assert best["score"] > scores[0]["score"], "answers are learned"
    held_out = held_out_indices(store.hashes, NUM_HELD_OUT, seed=5)
    kept = likeliest_share(job.stage_dir / "model", store, held_out, [store.segment_names.index("answer")])
    assert best["accuracy"] == pytest.approx(kept, abs=1e-6)
    structure = [n for n, name in enumerate(store.segment_names) if "." in name or name == "end_of_turn"]
    assert best["format"] == pytest.approx(likeliest_share(job.stage_dir / "model", store, held_out, structure))
    assert best["score"] == pytest.approx(0.7 * best["accuracy"] + 0.3 * best["format"])


def test_the_guard_chooses_in_bfloat16_as_in_float32(make_job):
    """By float32's scores, what bfloat16 chooses is as good as float32's choice but for one answer token's worth."""
    guard = GuardConfig(every_steps=2, num_examples=NUM_HELD_OUT, signal="teacher_forced")
    jobs = [
        make_job(f"chosen-in-{precision}", guard=guard).model_copy(update={"precision": precision})
        for precision in ("float32", "bfloat16")
    ]
    run_ranks(2, train, jobs)
    exact, rounded = ({r["step"]: r["guard"]["score"] for r in validation(job) if "guard" in r} for job in jobs)
    (tokens,) = {r["validation"]["segments"]["answer"]["tokens"] for r in validation(jobs[0]) if "validation" in r}
    one_token = 0.7 / tokens + 1e-9
    assert list(exact.values()) == pytest.approx(list(rounded.values()), abs=2 * one_token)
    best_in_float32, best_in_bfloat16 = (max(found, key=found.get) for found in (exact, rounded))
    assert best_in_bfloat16 > 2
    assert exact[best_in_bfloat16] >= exact[best_in_float32] - one_token
    assert max(exact.values()) - min(exact.values()) > 10 * one_token, "the models differ enough to choose"


def likeliest_share(model_dir: Path, store: EncodedStore, indices: np.ndarray, wanted: list[int]) -> float:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    hits = []
    for index in indices:
        ids, segments = store.example(int(index))
        with torch.no_grad():
            likeliest = model(input_ids=torch.tensor(ids)[None]).logits[0].argmax(-1)
        places = np.flatnonzero(np.isin(segments, wanted))
        hits += [int(likeliest[place - 1]) == ids[place] for place in places]
    return sum(hits) / len(hits)


def test_a_guarded_stage_resumes_to_the_same_bytes(make_job):
    guard = GuardConfig(every_steps=3, num_examples=5)
    whole, broken, started_over = (make_job(name, guard=guard) for name in ("whole", "broken", "started-over"))
    run_ranks(2, train, [whole])
    run_ranks(2, train, [broken, started_over], 4)
    for folder in ("checkpoints", "candidates"):  # as if it was killed before its first checkpoint counted
        shutil.rmtree(started_over.stage_dir / folder)
    run_ranks(2, train, [broken, started_over])
    for job in (broken, started_over):
        for file in ("validation.jsonl", "metrics.jsonl", "model/model.safetensors"):
            assert (job.stage_dir / file).read_bytes() == (whole.stage_dir / file).read_bytes()


def test_a_guard_that_can_judge_nothing_says_so(make_job):
    job = make_job("unjudged", guard=GuardConfig(num_examples=5), answer_check="numeric")
    with pytest.raises(ProcessRaisedException, match=r"DataError.*none of the held-out answers can be judged"):
        run_ranks(2, train, [job])


def test_a_best_model_that_is_gone_is_named(make_job):
    job = make_job("gone", guard=GuardConfig(every_steps=3, num_examples=5))
    run_ranks(2, train, [job], 4)
    (job.stage_dir / "candidates" / "step_00000000").rename(job.stage_dir / "elsewhere")
    with pytest.raises(ProcessRaisedException, match=r"candidates/step_00000000: the guard's best model is gone"):
        run_ranks(2, train, [job])


def test_a_loss_that_is_no_number_stops_before_the_update_and_names_rank_and_examples(
    store, make_job, tiny_model, tmp_path
):
    """One token's embedding is NaN, so the examples that have it are the ones to be named."""
    prompts = [set(store.example(index)[0].tolist()) for index in range(len(store))]
    everywhere = set.intersection(*prompts)
    token = min(set.union(*prompts) - everywhere, key=lambda t: abs(sum(t in p for p in prompts) - 8))
    poisoned = tmp_path / "poisoned"
    copy_model(tiny_model, poisoned, token)
    job = make_job("poisoned", poisoned, global_batch_size=32)
    with pytest.raises(ProcessRaisedException, match=r"loss of step 0 is nan; no weight was updated") as raised:
        run_ranks(2, train, [job])
    named = str(raised.value).split("rows with these examples: ")[1].split(". Look")[0]
    assert named.startswith("rank ")
    ids = [name for part in named.split("; ") for name in part.split(": ", 1)[1].split(", ")]
    by_id = {name: index for index, name in enumerate(store.example_ids(range(len(store))))}
    assert any(token in prompts[by_id[name]] for name in ids)
    assert not (job.stage_dir / "metrics.jsonl").read_text()


def copy_model(source: Path, out: Path, token: int) -> None:
    """The model with its embeddings untied and one of them not a number."""
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(out)
    for file in source.glob("tokenizer*"):
        (out / file.name).write_bytes(file.read_bytes())
    weights = load_file(out / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text()) | {"tie_word_embeddings": False}
    (out / "config.json").write_text(json.dumps(config))


PARTS = (0.25, 0.5)


def interpolating(job: StageJob, **changes) -> StageJob:
    stage = replace(job.stage, interpolate=PARTS)
    return job.model_copy(update={"stage": stage} | changes)


def test_a_model_between_start_and_end_is_scored_kept_and_exported(store, make_job, tiny_model, tmp_path):
    """The learning rate is so high that the end is worse than what lies before it."""
    guard = GuardConfig(every_steps=NUM_STEPS, num_examples=NUM_HELD_OUT, signal="teacher_forced")
    end, broken = (make_job(name, guard=guard, learning_rate=0.03) for name in ("end", "broken"))
    end = end.model_copy(update={"guard": end.guard.model_copy(update={"settings": last_of(guard)})})
    whole = interpolating(make_job("whole", guard=guard, learning_rate=0.03))
    rounded = interpolating(make_job("rounded", guard=guard, learning_rate=0.03), precision="bfloat16")
    broken = interpolating(broken)
    adapted = interpolating(make_job("adapted", guard=guard, learning_rate=0.03))
    adapted = adapted.model_copy(update={"training": adapted.training.model_copy(update={"lora": LoraConfig(rank=2)})})
    adapted_end = end.model_copy(update={"training": adapted.training, "stage_dir": tmp_path / "adapted-end"})
    adapted_end = adapted_end.model_copy(update={"checkpoints": str(adapted_end.stage_dir / "checkpoints")})
    run_ranks(2, train, [end, whole, rounded, adapted, adapted_end])
    run_ranks(2, train, [broken], 8)
    run_ranks(1, train, [broken])

    held_out = held_out_indices(store.hashes, NUM_HELD_OUT, seed=5)
    answer = [store.segment_names.index("answer")]
    start, kept_parts = load_file(tiny_model / "model.safetensors"), []
    for job, job_end in ((whole, end), (adapted, adapted_end)):
        last = weights_of(job_end.stage_dir / "model")
        scores = [record["guard"]["score"] for record in validation(job) if "guard" in record]
        found = {record["part"]: record["guard"] for record in interpolations(job)}
        assert list(found) == list(PARTS)
        for part in PARTS:
            between = {name: torch.lerp(start[name], last[name], part) for name in start}
            folder = tmp_path / f"{job.stage_dir.name}-{part}"
            shutil.copytree(job_end.stage_dir / "model", folder)
            save_file(between, folder / "model.safetensors", metadata={"format": "pt"})
            share = likeliest_share(folder, store, held_out, answer)
            assert found[part]["accuracy"] == pytest.approx(share, abs=1e-6)
        best, expected = max(found, key=lambda part: found[part]["score"]), start if scores[0] >= scores[-1] else last
        if found[best]["score"] > max(scores):
            kept_parts.append(best)
            expected = load_file(tmp_path / f"{job.stage_dir.name}-{best}" / "model.safetensors")
        kept = weights_of(job.stage_dir / "model")
        assert all(torch.allclose(kept[name], expected[name], atol=1e-6) for name in expected)
    assert kept_parts, "processors round differently, but no model between was the best on this one"
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(base, adapted.stage_dir / "adapter").merge_and_unload()
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight.detach(), kept[name], atol=1e-6, rtol=0)
    assert {value.dtype for value in weights_of(rounded.stage_dir / "model").values()} == {torch.bfloat16}
    assert [r["guard"]["score"] for r in interpolations(rounded)] == pytest.approx(
        [r["guard"]["score"] for r in interpolations(whole)], abs=0.1
    )
    same = weights_of(broken.stage_dir / "model"), weights_of(whole.stage_dir / "model")
    assert all(torch.allclose(same[0][name], same[1][name], atol=1e-3) for name in same[0])


def interpolations(job: StageJob) -> list[dict]:
    return [json.loads(line) for line in (job.stage_dir / "interpolations.jsonl").read_text().splitlines()]


def last_of(guard: GuardConfig) -> GuardConfig:
    return guard.model_copy(update={"keep": "last"})
