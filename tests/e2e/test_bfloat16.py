"""A run in bfloat16 through the command line, the rehearsal of what accelerators do: masters come, serve and go.

Its data are conversations of two responses, of which the first calls a tool, and its chat template opens a thinking
tag, which the contract takes as its reasoning.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sftkey_dist.data.store import EncodedStore
from sftkey_dist.models.load import load_tokenizer
from tests.chat_templates import QWEN3
from tests.e2e.continuations import check_continuations, read_lines

TOOLS = Path(__file__).parents[2] / "configs/contracts/tools.yaml"
OPENS = "{% if add_generation_prompt and enable_thinking %}{{ '<think>\n' }}{% endif %}"
BFLOAT16 = ("training.precision=bfloat16", "tracking.enabled=false", "optimization.max_steps=2")
KEY_RATE = "key_stage.optimization.learning_rate"


@pytest.fixture
def arguments(tiny_config, tmp_path):
    """The configuration, with conversations, a template of the run's own and an argument for it."""
    template = tmp_path / "thinking.jinja"
    template.write_text(QWEN3 + OPENS)
    prompt = (f"prompt.chat_template={template}", "prompt.template_arguments={enable_thinking: true}")
    settings = yaml.safe_load(tiny_config.read_text())
    for name, numbers in (("train", range(32)), ("test", range(50, 54))):
        rows = tmp_path / f"{name}.jsonl"
        rows.write_text("".join(json.dumps(conversation(number)) + "\n" for number in numbers))
        settings["data"][name] = {"adapter": "messages", "path": str(rows), "trained_turns": "all"}
    tiny_config.write_text(yaml.safe_dump(settings))
    return (tiny_config, TOOLS, *prompt, *BFLOAT16)


def conversation(number: int) -> dict:
    """A question that is answered after a tool was asked."""
    call = {"function": {"name": "price", "arguments": json.dumps({"of": number})}}
    return {
        "messages": [
            {"role": "user", "content": f"Is {number} dear?"},
            {"role": "assistant", "content": None, "reasoning_content": "I ask.", "tool_calls": [call]},
            {"role": "tool", "content": str(number * 2)},
            {"role": "assistant", "content": "yes", "reasoning_content": f"It is {number * 2}."},
        ],
        "tools": [{"name": "price"}],
    }


def test_stage_2_starts_from_masters_that_go_when_nobody_needs_them_and_come_back_when_somebody_does(
    sftkey, arguments, tmp_path
):
    done = sftkey("run", *arguments, "evaluation.swapped_reasoning=2")
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
    check_calls(tmp_path / "runs/tiny")
    check_swapped(tmp_path / "runs/tiny", full / "model")
    shown = sftkey("show", *arguments, "--number", "1")
    assert shown.stdout.count("stored weights changed") == 3, "sft-tag's stage, and both of sftkey-tag"
    again = sftkey("train", *arguments, f"{KEY_RATE}=2e-4", "training.keep_masters=true")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "master weights that the next stage starts from are gone; it is trained again" in " ".join(
        again.stdout.split()
    )
    assert (full / "masters/manifest.json").is_file()
    assert len(list(stages.glob("tagged-full-key-*"))) == 2


def check_calls(run_dir: Path) -> None:
    """Every response of a conversation is an example, in training and in the evaluation, and calls are compared."""
    (store,) = run_dir.parent.glob("store/train-tagged-*")
    assert len(EncodedStore(store)) == 64
    evaluated = list(run_dir.glob("evaluation/*/records.jsonl"))
    assert len(evaluated) == len(json.loads((run_dir / "comparison.json").read_text())["rows"]) == 2
    for file in evaluated:
        records = [json.loads(line) for line in file.read_text().splitlines()]
        calls = [record for record in records if record["reference"]["tool_call"]]
        answers = [record for record in records if record["reference"]["answer"]]
        assert (len(calls), len(answers)) == (4, 4)
        assert {turn["role"] for record in answers for turn in record["tool_turns"]} == {"assistant", "tool"}
        assert all(set(record["fields"]) == {"tool_call", "answer"} for record in records)


def check_swapped(run_dir: Path, model: Path) -> None:
    """A call of a tool after the reasoning for another one, where the prompt has opened the thinking."""
    (evaluation,) = run_dir.glob("evaluation/sft-tag-*")
    tokenizer, prompts = load_tokenizer(model), {}
    calls = [record for record in read_lines(evaluation / "records.jsonl") if record["reference"]["tool_call"]]
    for record in calls:
        prompts[record["id"]] = tokenizer.apply_chat_template(
            [{"role": "user", "content": record["prompt"]}],
            tools=conversation(0)["tools"],
            tokenize=False,
            add_generation_prompt=True,
        )
    marks = ["\n</think>\n\n", "<tool_call>\n"]
    check_continuations(evaluation, model, lambda line: [prompts[line["id"]], "I ask.", *marks], 8)
    found = json.loads((evaluation / "swapped_reasoning.json").read_text())
    assert len(found["records"]) == 2
    assert set(found["left_out"]) <= {"no_donor"}, "all answers are the same, and calls are not"


def check_template(model: Path) -> None:
    """Whoever loads the exported model writes the prompts that it was trained on, with one pair of tags."""
    tokenizer = load_tokenizer(model)
    row = conversation(0)
    prompt = tokenizer.apply_chat_template(
        row["messages"][:1], tools=row["tools"], tokenize=False, add_generation_prompt=True
    )
    assert prompt.endswith("assistant\n<think>\n")
    (store,) = model.parents[3].glob("store/train-tagged-*")
    ids, segments = EncodedStore(store).example(0)
    assert tokenizer.decode(ids[segments == 0]) == prompt
    response = tokenizer.decode(ids[segments != 0])
    assert response.startswith(
        'I ask.\n</think>\n\n<tool_call>\n{"name": "price", "arguments": {"of": 0}}\n</tool_call>'
    )
