"""A run in bfloat16 through the command line, the rehearsal of what accelerators do: masters come, serve and go.

Its chat template is one that opens a thinking tag, which the contract takes as its reasoning.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sftkey_dist.data.store import EncodedStore
from sftkey_dist.models.load import load_tokenizer

THINKING = Path(__file__).parents[2] / "configs/contracts/thinking.yaml"
OPENS = "{% if add_generation_prompt and enable_thinking %}{{ '<think>\n' }}{% endif %}"
BFLOAT16 = ("training.precision=bfloat16", "tracking.enabled=false", "optimization.max_steps=2")
KEY_RATE = "key_stage.optimization.learning_rate"


@pytest.fixture
def arguments(tiny_config, tiny_model, tmp_path):
    """The configuration, with a template of the run's own and an argument for it."""
    template = tmp_path / "thinking.jinja"
    template.write_text((tiny_model / "chat_template.jinja").read_text() + OPENS)
    prompt = (f"prompt.chat_template={template}", "prompt.template_arguments={enable_thinking: true}")
    return (tiny_config, THINKING, *prompt, *BFLOAT16)


def test_stage_2_starts_from_masters_that_go_when_nobody_needs_them_and_come_back_when_somebody_does(
    sftkey, arguments, tmp_path
):
    done = sftkey("run", *arguments)
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
    check_template(key / "model")
    shown = sftkey("show", *arguments, "--number", "1")
    assert shown.stdout.count("stored weights changed") == 3, "sft-tag's stage, and both of sftkey-tag"
    again = sftkey("train", *arguments, f"{KEY_RATE}=2e-4", "training.keep_masters=true")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "master weights that the next stage starts from are gone; it is trained again" in " ".join(
        again.stdout.split()
    )
    assert (full / "masters/manifest.json").is_file()
    assert len(list(stages.glob("tagged-full-key-*"))) == 2


def check_template(model: Path) -> None:
    """Whoever loads the exported model writes the prompts that it was trained on, with one pair of tags."""
    tokenizer = load_tokenizer(model)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.endswith("assistant\n<think>\n")
    (store,) = model.parents[3].glob("store/train-tagged-*")
    ids, segments = EncodedStore(store).example(0)
    assert tokenizer.decode(ids[segments == 0]).endswith("assistant\n<think>\n")
    response = tokenizer.decode(ids[segments != 0])
    assert (response.count("<think>"), response.count("\n</think>\n\n")) == (0, 1)
