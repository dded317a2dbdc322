"""A run in bfloat16 through the command line, the rehearsal of what accelerators do: masters come, serve and go."""

import json

import torch
from safetensors.torch import load_file

BFLOAT16 = ("training.precision=bfloat16", "tracking.enabled=false", "optimization.max_steps=2")
KEY_RATE = "key_stage.optimization.learning_rate"


def test_stage_2_starts_from_masters_that_go_when_nobody_needs_them_and_come_back_when_somebody_does(
    sftkey, tiny_config, tmp_path
):
    done = sftkey("run", tiny_config, *BFLOAT16)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = tmp_path / "runs/tiny/stages"
    (full,) = [
        folder for folder in stages.iterdir() if folder.name.startswith("tagged-full-") and "key" not in folder.name
    ]
    (key,) = stages.glob("tagged-full-key-*")
    for stage in (full, key):
        summary = json.loads((stage / "stage.json").read_text())
        assert summary["inputs"]["starts_from_masters"] == (stage is key)
        assert summary["rounding"]["precision"] == "bfloat16"
        assert 0 < summary["rounding"]["num_changed"] <= summary["rounding"]["num_weights"]
        weights = load_file(stage / "model/model.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.bfloat16}
        assert not (stage / "masters").exists()
        assert f"{summary['rounding']['num_changed']:,} of {summary['rounding']['num_weights']:,}" in done.stdout
    assert "% of its update is left after rounding" in (tmp_path / "runs/tiny/comparison.html").read_text()
    shown = sftkey("show", tiny_config, *BFLOAT16, "--number", "1")
    assert shown.stdout.count("stored weights changed") == 3, "sft-tag's stage, and both of sftkey-tag"
    again = sftkey("train", tiny_config, *BFLOAT16, f"{KEY_RATE}=2e-4", "training.keep_masters=true")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "master weights that the next stage starts from are gone; it is trained again" in " ".join(
        again.stdout.split()
    )
    assert (full / "masters/manifest.json").is_file()
    assert len(list(stages.glob("tagged-full-key-*"))) == 2
