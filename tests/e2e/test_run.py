"""The main job through the real command line, Ray, ZeRO-3 and MLflow, interrupted and gone on with."""

import json
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from sftkey_dist.data.memos import generate_memos
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.lock import locked
from tests.capability_tasks import NUM_DOCUMENTS, write_tasks
from tests.e2e.conftest import environment, error_line
from tests.e2e.continuations import check_continuations, read_lines
from tests.e2e.forked import ForkedCommand
from tests.processes import descendants, kill_all


@pytest.fixture
def killed_in_stage_2(tiny_config, tmp_path, empty_database):
    """A run whose driver is killed after a checkpoint of stage 2; its cluster dies with it."""
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_database, tmp_path / "runs")
    driver = ForkedCommand(["run", tiny_config], tmp_path, environment(), tmp_path / "killed.log")
    stages, deadline = tmp_path / "runs" / "tiny" / "stages", time.monotonic() + 300
    try:
        while not list(stages.glob("tagged-full-key-*/checkpoints/step_*/manifest.json")):
            assert driver.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "stage 2 wrote no checkpoint"
            time.sleep(0.05)
    finally:
        children = descendants(driver.pid)
        driver.kill()
        driver.wait()
        time.sleep(2.0)
        kill_all(children)
    return stages


def test_run_killed_in_stage_2_finishes_without_repeating_stage_1(sftkey, tiny_config, tmp_path, killed_in_stage_2):
    (stage_1,) = [d for d in killed_in_stage_2.glob("tagged-full-*") if "key" not in d.name]
    (stage_2,) = killed_in_stage_2.glob("tagged-full-key-*")
    assert (stage_1 / "stage.json").is_file()
    assert not (stage_2 / "stage.json").exists()
    before = (stage_1 / "timings.jsonl").read_bytes()

    done = sftkey("run", tiny_config)
    assert done.returncode == 0, done.stderr
    assert "sft-tag stage 1/1 (full): finished earlier" in done.stdout
    assert "sftkey-tag stage 1/2 (full): shared with sft-tag" in done.stdout
    assert (stage_1 / "timings.jsonl").read_bytes() == before
    assert [json.loads(line)["step"] for line in (stage_2 / "metrics.jsonl").read_text().splitlines()] == list(
        range(24)
    )
    check_comparison(tmp_path, done.stdout)
    check_mlflow(tmp_path)
    check_exported_model(stage_2 / "model")
    assert f"model of sftkey-tag: {(stage_2 / 'model').relative_to(tmp_path)}" in done.stdout
    assert "sftkey-tag stage 2/2 (key): continuing on 2 workers after step" in done.stdout

    again = sftkey("run", tiny_config)
    assert again.returncode == 0
    assert "evaluation: finished earlier" in again.stdout
    check_mlflow(tmp_path)

    generations = all_generations(tmp_path)
    assert len(generations) == 2
    write_tasks(tmp_path / "tasks")
    capabilities = "evaluation.capabilities={tasks: [memo_broken, memo_choice], task_dir: tasks}"
    rescored = sftkey("run", tiny_config, "evaluation.alpha=0.5", "strategies=[sftkey-tag]", capabilities)
    assert rescored.returncode == 1, "one task is broken"
    assert "task memo_broken of the base model, sftkey-tag: the task failed (UndefinedError" in rescored.stderr
    measured = capability_results(tmp_path)
    assert len(measured) == 2, "of the base model and of the strategy's"
    (row,) = json.loads((tmp_path / "runs" / "tiny" / "comparison.json").read_text())["rows"]
    assert row["score"] == pytest.approx(0.5 * row["accuracy"] + 0.5 * row["format"])
    assert all_generations(tmp_path) == generations, "scored anew, not generated anew"

    keep_the_format(generations)
    generations = all_generations(tmp_path)
    swapped = ("evaluation.swapped_reasoning=3", "evaluation.batch_size=16")
    both = sftkey("evaluate", tiny_config, capabilities.replace("memo_broken, ", ""), *swapped)
    assert both.returncode == 0, both.stderr
    check_comparison(tmp_path, both.stdout)
    assert "capabilities: 1/1" in both.stdout, "what is measured is not measured again"
    now = capability_results(tmp_path)
    assert len(now) == 3
    assert now.items() > measured.items()
    check_capabilities(tmp_path, both.stdout)
    assert all_generations(tmp_path) == generations, "swapped reasoning adds to what was generated"
    check_swapped(tmp_path, both.stdout, {"sft-tag": stage_1, "sftkey-tag": stage_2})


def all_generations(tmp_path):
    return {file: file.read_bytes() for file in (tmp_path / "runs").rglob("generations.jsonl")}


def keep_the_format(files):
    """What the tiny model does not: then its own reasoning can be swapped, too."""
    for file in files:
        lines = read_lines(file)
        for number, line in enumerate(lines):
            line["samples"][0]["text"] = f"<Thinking>{own_reasoning(line['id'])}</Thinking><Answer>{number}</Answer>"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def own_reasoning(question):
    return f"I think of {question}."


def capability_results(tmp_path):
    return {file: file.read_bytes() for file in (tmp_path / "runs/tiny/capabilities").iterdir()}


def check_capabilities(tmp_path, output):
    """The numbers of the harness are in the comparison, on the terminal and in MLflow."""
    run, (client, runs) = tmp_path / "runs/tiny", runs_of_mlflow(tmp_path)
    files = json.loads((run / "capabilities.json").read_text())
    before = json.loads((run / files["base"]["memo_choice"]).read_text())["metrics"]
    for row in json.loads((run / "comparison.json").read_text())["rows"]:
        after = json.loads((run / files["strategies"][row["strategy"]]["memo_choice"]).read_text())["metrics"]
        (parent,) = (r for r in runs if r.info.run_id == row["mlflow_run_id"])
        for found, old, new in zip(row["capabilities"], before, after, strict=True):
            assert (found["before"], found["after"]) == (old["mean"], new["mean"])
            assert found["n"] == len(new["values"]) == NUM_DOCUMENTS
            name = f"capability/memo_choice/{new['name']}"
            assert [point.value for point in client.get_metric_history(parent.info.run_id, name)] == [new["mean"]]
    assert "memo_choice acc" in output


def check_swapped(tmp_path, output, stages):
    """The answers are those that transformers generates, and their shares are in the comparison and in MLflow."""
    run, (client, _) = tmp_path / "runs/tiny", runs_of_mlflow(tmp_path)
    entries = json.loads((run / "strategies.json").read_text())
    found = {}
    for row in json.loads((run / "comparison.json").read_text())["rows"]:
        file = run / entries[row["strategy"]]["swapped_reasoning"]
        model = stages[row["strategy"]] / "model"
        assert f"{row['strategy']} swapped reasoning" in output
        records = read_lines(file.parent / "records.jsonl")
        references = {record["id"]: record["reference"] for record in records}
        check_continuations(file.parent, model, partial(begun_by, prompts_of(records, model), references), 8)
        found[row["strategy"]] = json.loads(file.read_text())["records"]
        for of in found[row["strategy"]]:
            assert references[of["id"]]["answer"] != references[of["donor"]]["answer"]
        for name, outcome in (("follows", "outcome"), ("carries", "generated_outcome")):
            share = sum(of[outcome] == "follows" for of in found[row["strategy"]]) / 3
            assert row["swapped_reasoning"][name]["value"] == share
            assert client.get_run(row["mlflow_run_id"]).data.metrics[f"swapped_reasoning/{name}"] == share
    assert len({tuple((of["id"], of["donor"]) for of in records) for records in found.values()}) == 1, "the same pairs"


def prompts_of(records, model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    return {
        record["id"]: tokenizer.apply_chat_template(
            [{"role": "user", "content": record["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        for record in records
    }


def begun_by(prompts, references, line):
    """The texts before the answer of a continuation."""
    reasonings = {
        "own": references[line["id"]]["reasoning"],
        "donor": references[line["donor"]]["reasoning"],
        "generated": own_reasoning(line["donor"]),
    }
    return [prompts[line["id"]], "<Thinking>", reasonings[line["reasoning"]], "</Thinking>", "<Answer>"]


def check_comparison(tmp_path, output):
    run = tmp_path / "runs" / "tiny"
    rows = json.loads((run / "comparison.json").read_text())["rows"]
    assert [row["strategy"] for row in rows] == ["sft-tag", "sftkey-tag"]
    for row in rows:
        assert row["strategy"] in output
        (folder,) = (run / "evaluation").glob(f"{row['strategy']}-*")
        records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        assert len({record["id"] for record in records}) == len(records) == row["n"] == 8
        accuracy = sum(record["verdict"] == "correct" for record in records) / 8
        kept = sum(record["keeps_contract"] for record in records) / 8
        assert (row["accuracy"], row["format"]) == (accuracy, kept)
        assert row["score"] == pytest.approx(0.7 * accuracy + 0.3 * kept)
    assert [stage["shared_with"] for stage in rows[1]["stages"]] == ["sft-tag", None]


def runs_of_mlflow(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    return client, client.search_runs([experiment.experiment_id])


def check_mlflow(tmp_path):
    client, runs = runs_of_mlflow(tmp_path)
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = {run.info.run_id: run.info.run_name for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert sorted(parents.values()) == ["sft-tag seed-0", "sftkey-tag seed-0"]
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert sorted(children) == [
        "sft-tag seed-0: evaluation",
        "sft-tag seed-0: stage full",
        "sftkey-tag seed-0: evaluation",
        "sftkey-tag seed-0: stage full of sft-tag",
        "sftkey-tag seed-0: stage key",
    ]
    for name, run in children.items():
        assert name.startswith(f"{parents[run.data.tags['mlflow.parentRunId']]}: ")
    key = children["sftkey-tag seed-0: stage key"].info.run_id
    history = client.get_metric_history(key, "segments/answer/nll")
    assert sorted(metric.step for metric in history) == list(range(24)), "a resumed run logs every step once"
    check_models(client, runs[0].info.experiment_id, parents)


def check_models(client, experiment, parents):
    """Every strategy's run has its model with its scores on the test set, what it cost, and its outputs."""
    models = {model.source_run_id: model for model in client.search_logged_models([experiment])}
    assert models.keys() == parents.keys()
    for run_id, model in models.items():
        metrics = client.get_run(run_id).data.metrics
        assert {"accuracy", "format", "score", "train_seconds", "loss_tokens"} <= metrics.keys()
        scores = {metric.key: metric.value for metric in model.metrics if metric.dataset_name == "decision_memos/test"}
        assert scores["n"] == 8
        assert {name: scores[name] for name in ("accuracy", "format", "score")}.items() <= metrics.items()
        assert model.tags["mlflow.model.isExternal"] == "true", "its files are larger than what is uploaded"
        table = json.loads(Path(client.download_artifacts(run_id, "outputs.json")).read_text())
        assert table["columns"][:6] == ["question", "reference", "answer", "verdict", "format", "output"]
        assert len(table["data"]) == 8


def check_exported_model(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (folder / "provenance.json").is_file()
    for leftover in ("ray", "checkpoints", "heartbeats"):
        assert not (folder.parent / leftover).exists(), "a finished stage keeps no checkpoints"
    begun, done = (json.loads((folder.parent / name).read_text()) for name in ("begun.json", "stage.json"))
    assert begun["num_steps"] >= done["steps"] > 0, "what a live view counts to is said before the first step"
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    generated = pipeline("text-generation", model=model, tokenizer=tokenizer)("Approve?", max_new_tokens=3)
    assert generated[0]["generated_text"].startswith("Approve?")
    check_card(folder)


def check_card(folder):
    """The lines of Python on a model's card run in its folder."""
    _, code, _ = re.split(r"```python\n|```\n", (folder / "README.md").read_text(), maxsplit=2)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout  # of a model that has learned next to nothing


def test_prepare_and_show_print_what_will_be_trained(sftkey, tiny_config, tokenizer):
    prepared = sftkey("prepare", tiny_config)
    assert prepared.returncode == 0, prepared.stderr
    assert prepared.stdout.count("64 of 64 rows kept, none dropped") == 1, "once, not also above the table"
    assert "train (tagged): tokens per segment" in prepared.stdout
    assert "answer.close" in prepared.stdout
    run = RunDir(tiny_config.parent / "runs/tiny")
    before = run.config.read_bytes()
    with locked(run.lock):  # as another command does that trains the run meanwhile
        shown = sftkey("show", tiny_config, "-n", "1", "optimization.num_epochs=7")
    assert shown.returncode == 0, shown.stderr
    assert run.config.read_bytes() == before, "showing only reads"
    assert "\nreasoning.open: <Thinking>" in shown.stdout
    key_tokens = [int(n) for n in re.findall(r"stage key: (\d+) of \d+ tokens carry loss", shown.stdout)]
    answer = next(generate_memos("train", 1, seed=0)).values["answer"]
    assert key_tokens == [len(tokenizer(answer)["input_ids"])]
    assert shown.stdout.count(f"[[{answer}]]") == 1, "marked in the stage that trains it alone"
    assert "\n[[ ]]: these tokens carry loss" in shown.stdout, "a legend says what the marks mean"


def test_plan_shows_every_stage_on_any_number_of_ranks_and_needs_no_weights(sftkey, tiny_config, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "shape", ignore=shutil.ignore_patterns("*.safetensors"))
    arguments = ("--ranks", "1,2,4", "--steps", "3", "--nodes", "2", "--price-per-gpu-hour", "2")
    done = sftkey("plan", tiny_config, "model.path=shape", "key_stage.data.from=previous", *arguments)
    assert done.returncode == 0, done.stderr
    assert "sftkey-tag key: planned with the lengths of the references" in done.stdout
    expected_words = ("sftkey-tag key: 3 of 24 steps", "segment-aware", "as drawn", "longest first")
    for expected in (*expected_words, "2 x 8 h100-80g", "memory of a rank", "smallest cluster", "limited by"):
        assert expected in done.stdout
    assert "check the plan: sftkey-tag key: fewer than 8 examples per rank on 4 ranks" in done.stdout, done.stdout
    assert "sftkey-tag full: the stage of sft-tag, which is trained once" in done.stdout
    assert re.search(r"all 2 stages: [\d.]+ min, cost [\d.]+, without evaluations", done.stdout)
    stages = json.loads((tmp_path / "runs/tiny/plan.json").read_text())["stages"]
    assert [stage["name"] for stage in stages] == ["sft-tag full", "sftkey-tag key"], "a shared stage appears once"
    assert (tmp_path / "runs/tiny/plan.svg").is_file()
    assert not (tmp_path / "runs/tiny/stages").exists()
    shape = tmp_path / "shape" / "config.json"
    shape.write_text(json.dumps(json.loads(shape.read_text()) | {"intermediate_size": 2**26, "hidden_size": 2**14}))
    with locked(RunDir(tmp_path / "runs/tiny").lock):  # as another command does that trains the run meanwhile
        too_large = sftkey("plan", tiny_config, "model.path=shape", "--steps", "1", "--nodes", "1")
    assert too_large.returncode == 1, too_large.stderr
    assert "would be refused" in too_large.stdout
    bad = sftkey("plan", tiny_config, "--ranks", "2,x")
    assert bad.returncode == 2
    assert "--ranks takes integers" in error_line(bad)
