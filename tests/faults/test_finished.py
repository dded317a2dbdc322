"""A stage that counts as finished: what must be on disk by then, and how it is looked at when it is used again."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from torch.multiprocessing import ProcessRaisedException
from transformers import GenerationConfig
from typer.testing import CliRunner

from sftkey_dist.cli import app
from sftkey_dist.config.run import RunConfig
from sftkey_dist.errors import DataError, UserError
from sftkey_dist.pipeline import train as training
from sftkey_dist.pipeline.evaluate import evaluate
from sftkey_dist.pipeline.finished import verify_stages
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import RunPlan, plan_run
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.tracking import NullTracker
from sftkey_dist.training.checkpoint import remove_checkpoints
from tests.distributed.harness import run_ranks, train
from tests.distributed.runs import jobs_of

FLUSHED = "flushed.txt"


def train_and_note_flushes(jobs, folder: Path) -> None:
    """On one rank; names of files and folders that it flushes to disk, and of what it renames, in order."""
    fsync, replace = os.fsync, os.replace

    def note(text):
        with (folder / FLUSHED).open("a") as file:
            file.write(f"{text}\n")

    def note_fsync(descriptor):
        note(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_replace(source, target):
        note(f"-> {Path(target).name}")
        replace(source, target)

    os.fsync, os.replace = note_fsync, note_replace
    train(jobs)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_model) -> Path:
    """The tiny model with a generation configuration that transformers refuses to save once it is changed."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.7, "top_p": 0.8, "eos_token_id": 0}')
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory, base) -> RunConfig:
    folder = tmp_path_factory.mktemp("finished")
    sources = {
        split: {"adapter": "decision_memos", "split": split, "limit": limit}
        for split, limit in {"train": 16, "test": 4}.items()
    }
    return RunConfig.model_validate(
        {
            "run_dir": folder / "run",
            "model": {"path": str(base)},
            "data": sources | {"max_length_tokens": 512, "store_dir": folder / "store"},
            "strategies": ["sft-tag"],
            "optimization": {"global_batch_size": 8, "num_epochs": 1, "max_steps": 2, "learning_rate": 1e-3},
            "training": {"micro_batch_tokens": 1024, "checkpoint_every_steps": 1},
            "evaluation": {"max_new_tokens": 4},
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(scope="module")
def trained(config) -> StageDir:
    """By the workers, on one rank, under a mask that shuts others out of nothing but writing."""
    (job,) = jobs_of(config)
    before = os.umask(0o022)
    try:
        run_ranks(1, train_and_note_flushes, [job], config.run_dir)
    finally:
        os.umask(before)
    return StageDir(job.stage_dir)


@pytest.fixture
def finished(tmp_path, config, trained, monkeypatch) -> tuple[RunPlan, PlannedStage]:
    """A copy of the run, finished by the driver."""
    shutil.copytree(config.run_dir, tmp_path / "run")
    copy = config.model_copy(update={"run_dir": tmp_path / "run"})
    plan = planned_anew(copy)
    without_ray(monkeypatch)
    training.train(plan, NullTracker())
    (planned,) = plan.stages
    return planned_anew(copy), planned


def planned_anew(config: RunConfig) -> RunPlan:
    """As another command does it."""
    return plan_run(config, prepare(config))


def without_ray(monkeypatch) -> None:
    """The workers have done their part."""

    class Runner:
        def run_stage(self, job):
            return None

    monkeypatch.setattr(training, "connected", lambda *_: nullcontext())
    monkeypatch.setattr(training, "stage_runner", lambda *_: nullcontext(Runner()))
    for check in ("require_sound_nodes", "_require_fit", "idle_in_words"):
        monkeypatch.setattr(training, check, lambda *_: None)


def test_an_export_is_on_disk_before_it_has_its_name(config, trained):
    seen = (config.run_dir / FLUSHED).read_text().splitlines()
    named = len(seen) - 1 - seen[::-1].index("-> model")
    since_last_checkpoint = seen[len(seen) - 1 - seen[::-1].index("-> manifest.json") : named]
    for file in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        assert file in since_last_checkpoint
    assert seen[named - 1].startswith(".model."), "the folder's entries"
    assert seen[named + 1] == trained.path.name, "the folder's name"
    first_checkpoint = seen.index("-> manifest.json")
    assert "metrics.jsonl" in seen[:first_checkpoint], "a checkpoint does not outlive the records of its steps"


def test_weights_that_libraries_write_have_the_mode_that_the_umask_gives(trained):
    modes = {file.name: file.stat().st_mode & 0o777 for file in trained.model.iterdir()}
    assert set(modes.values()) == {0o644}, modes
    assert trained.model.stat().st_mode & 0o777 == 0o755
    shards = list(trained.checkpoints.rglob("*.safetensors"))
    assert shards
    assert {file.stat().st_mode & 0o777 for file in shards} == {0o644}


def test_a_trained_model_generates_as_it_is_evaluated_and_what_that_leaves_out_is_said(trained):
    """The base model's configuration is also one that transformers refuses to save."""
    exported = GenerationConfig.from_pretrained(trained.model)
    assert (exported.do_sample, exported.temperature, exported.top_p) == (None, None, None)
    assert isinstance(exported.eos_token_id, list)
    (event,) = [e for e in read_records(trained.events) if e["event"] == "generation_config_changed"]
    assert event["message"].endswith("is without temperature, top_p of the base model's")
    assert not trained.trial_export.exists()


def refuse_to_save(job) -> None:
    def save(*_, **__):
        raise ValueError("no such\nconfiguration")

    GenerationConfig.save_pretrained = save
    train([job])


def test_what_cannot_be_exported_is_found_before_the_first_step(config, base, tmp_path):
    (job,) = jobs_of(config)
    job = job.model_copy(update={"stage_dir": tmp_path / "stage", "checkpoints": str(tmp_path / "checkpoints")})
    with pytest.raises(ProcessRaisedException, match=rf"ModelError: {base}: .* cannot be saved \(no such config"):
        run_ranks(1, refuse_to_save, job)
    assert not (tmp_path / "stage" / "metrics.jsonl").exists()
    assert not list((tmp_path / "stage").glob("*/*")), "no scratch is left"


def test_records_and_names_are_on_disk_before_the_stage_counts_and_checkpoints_go_after(
    tmp_path, config, trained, monkeypatch
):
    shutil.copytree(config.run_dir, tmp_path / "run")
    copy = config.model_copy(update={"run_dir": tmp_path / "run"})
    plan = planned_anew(copy)
    without_ray(monkeypatch)
    seen, fsync, replace = [], os.fsync, os.replace

    def note_fsync(descriptor):
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(f"-> {Path(b).name}"), replace(a, b)))
    monkeypatch.setattr(training, "remove_checkpoints", lambda to: (seen.append("removed"), remove_checkpoints(to)))
    training.train(plan, NullTracker())
    (planned,) = plan.stages
    counts = seen.index("-> stage.json")
    for name in ("-> provenance.json", "metrics.jsonl", "timings.jsonl", planned.directory.path.name, "stages", "run"):
        assert name in seen[:counts], name
    assert seen[counts + 1] == planned.directory.path.name
    assert "removed" in seen[counts:]
    assert "removed" not in seen[:counts]
    assert planned.is_finished


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    times = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk does it


def test_a_flipped_bit_in_a_finished_model_is_one_line_for_every_command(finished, tmp_path):
    plan, planned = finished
    flip_a_bit(planned.directory.model / "model.safetensors")
    file = tmp_path / "config.json"
    file.write_text(plan.config.model_dump_json())
    for command in ("train", "run", "evaluate"):
        done = CliRunner().invoke(app, [command, str(file)])
        assert isinstance(done.exception, UserError), done.output
        message = str(done.exception)
        assert "\n" not in message
        assert message.startswith(f"{planned.directory.model / 'model.safetensors'}: its SHA-256 is ")
        assert f"remove {planned.directory.path}: the same command then trains the stage again" in message


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"it has [\d,]+ bytes, and the stage wrote [\d,]+;"),
        (lambda file: file.unlink(), r"it is missing, and the stage wrote [\d,]+ bytes;"),
        (flip_a_bit, r"its SHA-256 is [0-9a-f]{64}, and the stage wrote [0-9a-f]{64};"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_any_change_of_a_finished_model_is_named(finished, name, damage, found):
    plan, planned = finished
    damage(planned.directory.model / name)
    for use in (
        lambda: verify_stages(plan),
        lambda: training.train(plan, NullTracker()),
        lambda: evaluate(plan, NullTracker()),
    ):
        with pytest.raises(DataError, match=rf"{name}: {found}"):
            use()


def test_a_model_is_read_once_a_command_and_its_card_may_change(finished):
    plan, planned = finished
    (planned.directory.model / "README.md").write_text("# another card")
    verify_stages(plan)
    flip_a_bit(planned.directory.model / "model.safetensors")
    training.train(plan, NullTracker())
    with pytest.raises(DataError, match="SHA-256"):
        training.train(planned_anew(plan.config), NullTracker())


def test_a_stage_that_was_finished_before_digests_were_noted_is_used_as_it_is(finished):
    plan, planned = finished
    content = json.loads(planned.directory.summary.read_text())
    assert "model.safetensors" in content.pop("model_files")
    planned.directory.summary.write_text(json.dumps(content))
    training.train(plan, NullTracker())


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b'{"digest": "'])
def test_a_damaged_summary_is_named_with_what_to_do(finished, content):
    plan, planned = finished
    planned.directory.summary.write_bytes(content)
    with pytest.raises(DataError, match=r"stage\.json: .*; restore it from a copy, or remove its folder"):
        training.train(plan, NullTracker())


def test_a_damaged_journal_of_a_stage_under_way_is_named_before_ray_starts(finished):
    plan, planned = finished
    planned.directory.summary.unlink()
    with planned.directory.metrics.open("ab") as file:
        file.write(b"\0" * 20 + b"\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:3: the line is damaged \(NULs\)"):
        training.train(plan, NullTracker())
