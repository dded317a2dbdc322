"""What is wrong before a step is trained is found before it."""

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from sftkey_dist.errors import ConfigError, ModelError
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.training.checkpoint import Needs, open_storage, require_space
from tests.e2e.conftest import error_line, sftkey  # noqa: F401

pytestmark = pytest.mark.single_process


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_run_directory_that_cannot_be_written_is_named(sftkey, run_config, tmp_path):  # noqa: F811
    config = tmp_path / "config.json"
    config.write_text(run_config.model_dump_json())
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], check=True)
    try:
        done = sftkey("train", config, f"run_dir={disk / 'run'}")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert done.returncode == 2
    assert "not writable (Read-only file system)" in error_line(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize("options", ["size=300k", "size=64m,nr_inodes=6"])
def test_a_disk_that_is_full_of_bytes_or_files_while_preparing_is_named(run_config, tmp_path, options):
    """Also where a library writes, with errors of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    content = run_config.model_dump(mode="json") | {"run_dir": str(disk / "run"), "model": {"embedded": {}}}
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    try:
        with pytest.raises((ModelError, OSError), match=r"No space left on device") as error:
            prepare(type(run_config).model_validate(content))
    finally:
        subprocess.run(["umount", disk], check=True)
    assert str(disk) in str(error.value)


def needs(num_parameters: int, num_checkpoints: int = 10, num_models: int = 1) -> Needs:
    return Needs(num_parameters, num_parameters, "float32", num_checkpoints, num_models)


def test_too_little_space_is_named_and_what_is_stored_counts(tmp_path, monkeypatch):
    stage, storage = tmp_path / "stage", open_storage(tmp_path / "stage" / "checkpoints")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 2**30))
    require_space(storage, stage, needs(70_000_000))
    with pytest.raises(ConfigError, match=r"3\.0 GiB are free, the stage's checkpoints and model take 3\.7 GiB"):
        require_space(storage, stage, needs(100_000_000))
    for step in (1, 2):
        folder = stage / "checkpoints" / f"step_{step:08d}-x"
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
    require_space(storage, stage, needs(100_000_000))
    with pytest.raises(ConfigError, match="the stage's checkpoints and model take 3"):
        require_space(storage, stage, needs(100_000_000, num_models=6))  # the guard's candidates
    require_space(open_storage(tmp_path / "other"), stage, needs(200_000_000, num_checkpoints=1))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"optimization": {"global_batch_size": 8, "num_epochs": 4, "learning_rate": 1e-4}},
        {"data": {"train": {"adapter": "decision_memos", "limit": 40}}},
    ],
)
def test_other_settings_or_data_are_another_stage_and_find_no_checkpoint(run_config, change):
    """So that nothing of one is taken for the other's; the old one's stay for whoever goes back."""
    content = run_config.model_dump(mode="json")
    changed = type(run_config).model_validate(content | change | {"data": content["data"] | change.get("data", {})})
    folders = []
    for each in (run_config, changed):
        folders.append({stage.directory.path.name for stage in plan_run(each, prepare(each)).stages})
    assert not folders[0] & folders[1]


@pytest.mark.slow
def test_code_that_a_model_ships_is_not_run(sftkey, run_config, tmp_path, tiny_model):  # noqa: F811
    model, planted = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(tiny_model, model)
    (model / "evil.py").write_text(f"open({str(planted)!r}, 'w')\nclass Evil: pass\n")
    config = (model / "config.json").read_text().replace('"model_type": "qwen3"', '"model_type": "evil"')
    assert "evil" in config
    (model / "config.json").write_text(
        config.rstrip()[:-1] + ', "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}'
    )
    settings = tmp_path / "config.json"
    settings.write_text(run_config.model_dump_json())
    done = sftkey("plan", settings, f"model.path={model}")
    assert done.returncode == 2, done.stdout
    assert str(model) in error_line(done)
    assert "trust_remote_code" in error_line(done)
    assert not planted.exists()
