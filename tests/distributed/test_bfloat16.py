"""bfloat16 as people past 8B train: every layout, the hand-off between stages, the exported folder."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import transformers
from deepspeed.utils import safe_get_local_fp32_param
from safetensors.torch import load_file, save_file
from torch.multiprocessing import ProcessRaisedException

from sftkey_dist.config.strategy import MuonConfig
from sftkey_dist.config.training import LoraConfig, ZeroConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.run_dir import StageDir
from sftkey_dist.training.engine.zero import ZeroEngine
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.weights.masters import StoredWeights
from tests.accelerator import exact, hand_off
from tests.accelerator.material import FULL, KEY, stage, tiny_model
from tests.distributed.harness import make_store, metrics, run_ranks, share_of_update_apart, train, weights_of
from tests.stage_job import with_optimization

RATE = 3e-3


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Stored in float32, on no grid of bfloat16's."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", hidden_size=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory, model):
    return make_store(tmp_path_factory.mktemp("store"), ResponseContract(), model)


@pytest.fixture
def make_job(store, model, tmp_path):
    def make(name: str, weights=FULL, *, steps: int = 6, rate: float = RATE, **settings) -> StageJob:
        optimization = {"global_batch_size": 6, "num_epochs": 9, "max_steps": steps, "learning_rate": rate}
        job = {key: settings.pop(key) for key in ("masters_dir", "hands_on_masters") if key in settings}
        made = stage(
            tmp_path / name,
            settings.pop("model_dir", model),
            store,
            weights,
            optimization=optimization,
            micro_batch_tokens=700,
            **settings,
        )
        return made.model_copy(update=job)

    return make


def masters_of(job: StageJob) -> dict[str, torch.Tensor]:
    files = sorted(StageDir(job.stage_dir).masters.glob("*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


def test_every_layout_is_float32s_to_bfloat16s_accuracy_and_a_resumed_stage_is_exact(tmp_path):
    layouts = exact.LAYOUTS | exact.SEVERAL_RANKS
    found = exact.compare(tmp_path, world_size=2, layouts=layouts, precisions=("bfloat16",))
    assert {row["layout"] for row in found["layouts"]} == set(layouts)
    assert [row for row in found["layouts"] if not row["passed"]] == []
    assert found["resumed"] == 0


def test_what_stage_2_learns_reaches_the_exported_folder_only_by_way_of_the_masters(tmp_path):
    """At the shipped 70B rate, against float32; from the rounded folder most of it is lost, which is the control."""
    found = hand_off.compare(tmp_path, hidden_size=32, stage_1_steps=10, world_size=2)["rows"]
    masters, rounded = found["bfloat16, from the masters"], found["bfloat16, from the rounded folder"]
    assert masters["share_of_float32"] == pytest.approx(1, abs=0.2)
    assert rounded["share_of_float32"] < 0.5
    assert masters["surviving_share"] == pytest.approx(1, abs=0.05)
    assert rounded["surviving_share"] == pytest.approx(rounded["share_of_float32"], abs=0.15), "it predicts the loss"


def test_masters_are_what_is_rounded_and_what_the_next_stage_starts_from_on_any_ranks(make_job, tmp_path):
    first = make_job("first", hands_on_masters=True)
    run_ranks(2, train, [first])
    masters, published = masters_of(first), weights_of(first.stage_dir / "model")
    assert set(published) == set(masters)
    assert all(value.dtype == torch.bfloat16 for value in published.values())
    assert all(torch.equal(published[name], value.bfloat16()) for name, value in masters.items())
    assert any(not torch.equal(value, value.bfloat16().float()) for value in masters.values())
    second = make_job("second", KEY, model_dir=first.stage_dir / "model", masters_dir=first.stage_dir / "masters")
    for world_size in (1, 2, 3):
        run_ranks(world_size, assert_starts_from, second, first.stage_dir / "masters")


def assert_starts_from(job: StageJob, folder: Path) -> None:
    """On one rank: the engine's slices are the masters', and what it computes with is their rounding."""
    engine = ZeroEngine(job)
    assert engine.weights.start_from_masters() == 0
    stored = StoredWeights.in_folder(folder)
    for name, parameter in engine._engine.module.named_parameters():
        share = parameter.ds_tensor
        expected = stored.range(name, share.numel() * dist.get_rank(), share.numel())
        assert torch.equal(safe_get_local_fp32_param(parameter), expected), name
        assert torch.equal(share.flatten(), expected.bfloat16()), name
    engine.close()


def test_a_float32_base_model_keeps_its_precision_and_what_is_published_may_be_float32(make_job, model):
    """One step at a rate that moves nothing: what comes out is what went in."""
    still = {"steps": 1, "rate": 1e-12, "export_precision": "float32"}
    decomposed = LoraConfig(rank=4, alpha=8.0, weight_decomposed=True)
    jobs = [make_job("still", **still), make_job("still-decomposed", lora=decomposed, **still)]
    run_ranks(2, train, jobs)
    start = weights_of(model)
    for job in jobs:
        for name, value in weights_of(job.stage_dir / "model").items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, start[name], rtol=0, atol=1e-7)
        rounding = json.loads((job.stage_dir / "rounding.json").read_text())
        assert rounding["precision"] == "float32"
        loaded = transformers.AutoModelForCausalLM.from_pretrained(job.stage_dir / "model")
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}, "the folder names it"


def test_adapters_are_merged_in_float32_and_the_masters_hold_more_than_what_is_published(make_job, model):
    settings = {"lora": LoraConfig(rank=4, alpha=8.0)}
    job = make_job("adapters", hands_on_masters=True, **settings)
    run_ranks(2, train, [job])
    masters, published, start = masters_of(job), weights_of(job.stage_dir / "model"), weights_of(model)
    assert all(torch.equal(published[name], value.bfloat16()) for name, value in masters.items())
    frozen = next(name for name in masters if "norm" in name or "embed" in name)
    assert torch.equal(masters[frozen], start[frozen]), "what is frozen keeps the base model's float32"
    adapted = {name: masters[name] - start[name] for name in masters if "q_proj.weight" in name}
    assert all(torch.linalg.matrix_rank(update, rtol=1e-3) == 4 for update in adapted.values())


def test_muon_in_bfloat16_trains_as_in_float32(make_job, model):
    muon = MuonConfig(learning_rate_ratio=5)
    jobs = [
        with_optimization(make_job(f"muon-{precision}", precision=precision), muon=muon)
        for precision in ("float32", "bfloat16")
    ]
    run_ranks(2, train, jobs)
    in_float32, in_bfloat16 = map(metrics, jobs)
    assert in_float32[-1]["loss"] < in_float32[0]["loss"] - 0.05, "nothing was learned, so equality would show little"
    for one, other in zip(in_float32, in_bfloat16, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=exact.LOSS_TOLERANCE["bfloat16"])
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=exact.NORM_TOLERANCE["bfloat16"])
    exact_model, rounded_model = (job.stage_dir / "model" for job in jobs)
    assert {weight.dtype for weight in weights_of(rounded_model).values()} == {torch.bfloat16}
    assert share_of_update_apart(exact_model, rounded_model, model) < 0.15


def test_damaged_masters_are_named_before_a_step(make_job):
    first = make_job("first", hands_on_masters=True, steps=1)
    run_ranks(1, train, [first])
    (file,) = (first.stage_dir / "masters").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    second = make_job("second", KEY, model_dir=first.stage_dir / "model", masters_dir=first.stage_dir / "masters")
    with pytest.raises(ProcessRaisedException, match=r"rank_00000.safetensors: the file differs from what was written"):
        run_ranks(2, train, [second])
    assert not (second.stage_dir / "metrics.jsonl").exists()


def test_weights_under_other_names_are_told(make_job, model, tmp_path):
    """A float32 folder whose names are mapped when it is loaded, as some architectures' are."""
    renamed = tmp_path / "renamed"
    transformers.AutoModelForCausalLM.from_pretrained(model).save_pretrained(renamed)
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(renamed)
    weights = weights_of(renamed)
    without_prefix = {name.removeprefix("model."): value for name, value in weights.items()}
    save_file(without_prefix, renamed / "model.safetensors", metadata={"format": "pt"})
    job = make_job("renamed-run", model_dir=renamed, steps=1)
    run_ranks(1, train, [job])
    (event,) = [json.loads(line) for line in StageDir(job.stage_dir).events.read_text().splitlines()]
    assert event["event"] == "rounded_start"
    assert event["message"].startswith(f"{len(weights)} weights")


def test_gradients_reduced_in_bfloat16_are_a_named_trade_off(make_job):
    exact_job = make_job("float32-sums")
    rounded = make_job("bfloat16-sums", zero=ZeroConfig(reduce_precision="bfloat16", max_gathered_gib=0))
    run_ranks(2, train, [exact_job, rounded])
    for one, other in zip(metrics(exact_job), metrics(rounded), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-3)
    assert metrics(exact_job)[-1]["loss"] != metrics(rounded)[-1]["loss"]
