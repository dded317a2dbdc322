"""A model that all ranks write side by side is the one that rank 0 writes alone, and is whole or not there."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers
from safetensors.torch import load_file

from sftkey_dist.config.training import LoraConfig, TrainingConfig
from sftkey_dist.errors import TrainingError
from sftkey_dist.models.load import check_model_folder, model_fingerprint
from sftkey_dist.models.shape import count_parameters
from sftkey_dist.training.engine.zero import ZeroEngine
from sftkey_dist.training.export import export_model
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.weights.layout import Part
from sftkey_dist.training.weights.masters import StoredWeights, verify_masters
from tests.distributed.harness import make_model, run_ranks
from tests.stage_job import make_stage_job

FILE_BYTES = 12_000
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CONFIGS = {
    "tied": transformers.Qwen3Config(**SMALL, tie_word_embeddings=True),
    "untied": transformers.Qwen3Config(**SMALL, tie_word_embeddings=False),
    "experts": transformers.Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
}
CASES = [
    ("tied", "float32", False),
    ("tied", "bfloat16", True),
    ("untied", "bfloat16", False),
    ("untied", "float32", True),
    ("experts", "bfloat16", False),
]
"""Models, precisions, and whether an adapter is merged."""


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_model) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make_model(root / name, config, tiny_model) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module", params=[2, 3])
def exported(request, models, tmp_path_factory) -> Path:
    """Folders of every case, each from one rank and from all, and what happened when a rank could not write."""
    out = tmp_path_factory.mktemp(f"{request.param}-ranks")
    run_ranks(request.param, export_all, models, out)
    return out


def export_all(models: dict[str, Path], out: Path) -> None:
    for case in CASES:
        job = job_of(case, models, out)
        engine = ZeroEngine(job)
        engine.state.set_masters(engine.state.names, master_of)
        export_model(engine, job, out / name_of(case) / "one")
        export_model(engine, job, out / name_of(case) / "several", max_file_bytes=FILE_BYTES)
        engine.weights.save_masters(out / name_of(case) / "masters", FILE_BYTES)
        if case == CASES[0]:
            fail_on_the_last_rank(engine, job, out / "failed")
        engine.close()


def name_of(case: tuple[str, str, bool]) -> str:
    model, precision, has_adapter = case
    return f"{model}-{precision}{'-adapter' if has_adapter else ''}"


def job_of(case: tuple[str, str, bool], models: dict[str, Path], out: Path) -> StageJob:
    model, precision, has_adapter = case
    lora = LoraConfig(rank=2, alpha=8.0) if has_adapter else None
    return make_stage_job(out, models[model], out, (0.0, 1.0), training=TrainingConfig(lora=lora), precision=precision)


def master_of(name: str, offset: int, size: int) -> torch.Tensor:
    """Off bfloat16's grid, another for every weight, and the same however many ranks there are."""
    return 0.1 * torch.sin(torch.arange(offset, offset + size) * 0.7 + len(name) + sum(map(ord, name)))


def fail_on_the_last_rank(engine: ZeroEngine, job: StageJob, folder: Path) -> None:
    """Its disk is full from its first file on; every rank notes what it is told, and what is left then."""

    def write(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_part = Part.write
    if engine.rank == engine.world_size - 1:
        Part.write = write  # type: ignore[method-assign]
    if engine.rank == 0:
        folder.mkdir()
    said = ""
    try:
        export_model(engine, job, folder / "model", max_file_bytes=FILE_BYTES)
    except TrainingError as error:
        said = str(error)
    left = [path.name for path in folder.iterdir()]
    Part.write = write_part  # type: ignore[method-assign]
    dist.barrier()
    (folder / f"{engine.rank}.json").write_text(json.dumps([said, left]))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_several_files_are_the_same_model_as_one(exported, case, models):
    one, several = exported / name_of(case) / "one", exported / name_of(case) / "several"
    names = {file.name for file in several.iterdir()}
    number = len(list(several.glob("*.safetensors")))
    assert number > 3
    assert {f"model-{i + 1:05d}-of-{number:05d}.safetensors" for i in range(number)} < names
    rest = {file.name: file.read_bytes() for file in one.iterdir()}
    whole = load_file(one / "model.safetensors")
    del rest["model.safetensors"]
    assert all((several / name).read_bytes() == content for name, content in rest.items())
    index = json.loads((several / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in whole.values())
    parts = {file: load_file(several / file) for file in set(index["weight_map"].values())}
    for name, file in index["weight_map"].items():
        assert parts[file][name].dtype == getattr(torch, case[1])
        assert torch.equal(parts[file][name], whole[name]), name


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_it_loads_and_generates_as_one_file_does(exported, case):
    answers = []
    for folder in (exported / name_of(case) / "one", exported / name_of(case) / "several"):
        model, problems = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(problems[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        answers.append(model.generate(torch.arange(5, 25)[None], max_new_tokens=12, do_sample=False))
    assert torch.equal(*answers)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_masters_in_several_files_are_what_was_rounded(exported, case, request):
    folder, one = exported / name_of(case) / "masters", exported / name_of(case) / "one"
    num_ranks = int(request.node.callspec.params["exported"])
    assert len(list(folder.glob("rank_*_?.safetensors"))) > num_ranks
    for rank in range(num_ranks):
        verify_masters(folder, rank, num_ranks)
    masters, published = StoredWeights.in_folder(folder), load_file(one / "model.safetensors")
    names = [name for name in published if "experts" not in name]
    assert len(names) > 10
    for name in names:
        assert torch.equal(masters.whole(name).to(published[name].dtype), published[name])
    masters.close()


def test_what_reads_model_folders_reads_several_files(exported, models, tmp_path):
    folder, one = exported / "untied-bfloat16" / "several", exported / "untied-bfloat16" / "one"
    check_model_folder(folder)
    assert count_parameters(folder) == count_parameters(one) == count_parameters(models["untied"])
    stored, alone = StoredWeights.in_folder(folder), StoredWeights.in_folder(one)
    for name in load_file(one / "model.safetensors"):
        assert torch.equal(stored.whole(name), alone.whole(name))
    file = sorted(shutil.copytree(folder, tmp_path / "copy").glob("*.safetensors"))[-1]
    assert model_fingerprint(file.parent) == model_fingerprint(folder)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert model_fingerprint(file.parent) != model_fingerprint(folder)


def test_a_rank_that_cannot_write_ends_all_and_nothing_is_left(exported):
    reports = sorted((exported / "failed").glob("*.json"))
    last = len(reports) - 1
    for report in reports:
        said, left = json.loads(report.read_text())
        assert said.startswith(f"rank {last} could not write the model's weights ([Errno 28] No space left on device);")
        assert left == []
