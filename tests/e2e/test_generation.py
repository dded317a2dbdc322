"""Generation as a fan-out of actors: killed and gone on with, nothing is lost and nothing is there twice.

Also what is made of it: a stage on responses that the model of the stage before has sampled.
"""

import json
import os
import shutil
import signal
import time

import psutil
import pytest
import ray

from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import CapabilitiesConfig, EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import Form
from sftkey_dist.evaluation.capabilities import fan_out
from sftkey_dist.evaluation.capabilities.fan_out import CapabilityJob, _Outcome, measure_all
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool
from sftkey_dist.evaluation.generation.spread import spread
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.pipeline.own_data.responses import with_own_responses
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.tracking.runs import open_tracker
from sftkey_dist.pipeline.train import train
from sftkey_dist.run_dir.artifacts.capabilities import CapabilityResult
from sftkey_dist.run_dir.artifacts.training import OBSERVATIONS, YIELD, read_summary

CLUSTER = ClusterConfig(num_workers=2)


@pytest.fixture(scope="module")
def cluster():
    os.environ.pop("RAY_ADDRESS", None)
    with connected(CLUSTER, 2):
        yield


@pytest.fixture
def job(tiny_model, contract):
    settings = EvaluationConfig(max_new_tokens=24, batch_size=4)
    return EvaluationJob(
        Form.TAGGED, contract, PromptConfig(), settings, {}, 0, False, model_dir=str(tiny_model), strategy="sft"
    )


def generated(folder):
    return [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]


def test_killed_actors_and_drivers_lose_and_repeat_nothing(cluster, job, memos, tmp_path):
    with EvaluationPool(CLUSTER, job.settings, 2) as pool:
        pool.generate(job, memos, tmp_path / "whole", lambda done: None)
        whole = {record["id"]: record for record in generated(tmp_path / "whole")}
        assert whole.keys() == {memo.id for memo in memos}

        def kill_one(done, killed=[]):  # noqa: B006
            if done >= 8 and not killed:
                killed.append(actors()[0])
                os.kill(killed[0], signal.SIGKILL)

        pool.generate(job, memos, tmp_path / "actor", kill_one)

        lines = (tmp_path / "whole" / "generations.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "driver").mkdir()
        left_behind = "".join(lines[:11]) + lines[11][:20]  # by a driver that died within a batch, and within a line
        (tmp_path / "driver" / "generations.jsonl").write_text(left_behind)
        pool.generate(job, memos, tmp_path / "driver", lambda done: None)
    for name in ("actor", "driver"):
        records = generated(tmp_path / name)
        assert len(records) == len(whole)
        assert {record["id"]: record for record in records} == whole


def actors():
    mine = psutil.Process().children(recursive=True)
    return [p.pid for p in mine if "_EvaluationActor" in " ".join(p.cmdline())]


class Worker:
    """One of them never comes back from its first chunk, as if its node were gone."""

    def __init__(self, hangs: bool) -> None:
        self.hangs = hangs

    def double(self, chunk: int) -> int:
        time.sleep(600 if self.hangs else 0.01)
        return 2 * chunk


def test_what_hangs_on_one_actor_is_done_by_another(cluster):
    actors = [ray.remote(num_cpus=0)(Worker).remote(hangs) for hangs in (False, True)]
    started = time.monotonic()
    results = spread(actors, lambda actor, chunk: actor.double.remote(chunk), list(range(9)), least_seconds=1.0)
    assert sorted(results) == [2 * chunk for chunk in range(9)]
    assert time.monotonic() - started < 60


@ray.remote
class Unlucky:
    """In place of the actor that solves tasks: one task takes more memory than there is."""

    def __init__(self, cluster):
        pass

    def measure(self, job):
        if job.task == "large":
            os._exit(1)
        return _Outcome(job, CapabilityResult(job.task, job.digest, "0", {}, 1, ()))


def test_a_task_that_loses_its_process_every_time_costs_no_other_task(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(fan_out, "_CapabilityActor", Unlucky)
    monkeypatch.setattr(fan_out, "options_of_actor", lambda *of: {"num_cpus": 1})  # no restarts, which take seconds
    names, done = ("first", "large", "third", "fourth"), []
    settings = CapabilitiesConfig(tasks=names)
    jobs = [
        CapabilityJob("base", tmp_path, task, settings, False, None, f"digest of {task}", "", tmp_path / f"{task}.json")
        for task in names
    ]
    (line,) = measure_all(jobs, CLUSTER, EvaluationConfig(), 1, done.append)
    assert line.startswith("capabilities: task large of base: its process was lost (")
    assert {file.stem for file in tmp_path.iterdir()} == {"first", "third", "fourth"}
    assert done == [1, 2, 3, 4]


@pytest.fixture
def two_stages(tmp_path):
    """A model that learns how to respond to a dozen cases, and the answers to some of them."""
    rows = [
        {"prompt": f"Case {letter}: approve?", "reasoning": f"It is {letter}, so {answer}", "answer": answer}
        for letter, answer in zip("abcdefghijklmn", ("no", "yes") * 7, strict=True)
    ]
    for name, some in (("train", rows), ("test", [rows[0] | {"prompt": "Case z?"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    weights = {"reasoning": 1.0, "tags": 1.0, "answer": 1.0, "end_of_turn": 1.0}
    key = {"name": "key", "weights": {"answer": 1.0}, "data": {"from": "previous", "samples": 3}}
    shape = {"vocab_size": 400, "hidden_size": 48, "intermediate_size": 96, "num_layers": 2}
    return RunConfig.model_validate(
        {
            "run_dir": tmp_path / "run",
            "model": {"embedded": shape | {"num_heads": 2, "num_kv_heads": 1}},
            "data": {
                "train": {"adapter": "records", "path": str(tmp_path / "train.jsonl")},
                "test": {"adapter": "records", "path": str(tmp_path / "test.jsonl")},
                "max_length_tokens": 128,
                "store_dir": tmp_path / "store",
                "num_workers": 1,
            },
            "strategies": [
                {
                    "name": "own",
                    "stages": [
                        {"name": "full", "weights": weights},
                        key | {"optimization": {"num_epochs": 2, "learning_rate": 1e-4}},
                    ],
                }
            ],
            "optimization": {"global_batch_size": 4, "num_epochs": 30, "learning_rate": 1e-2},
            "validation": {"num_examples": 2},
            "training": {"micro_batch_tokens": 512, "precision": "float32"},
            "evaluation": {"max_new_tokens": 40, "batch_size": 4, "num_workers": 2},
            "cluster": {"num_workers": 1},
            "tracking": {"enabled": False},
        }
    )


@pytest.mark.slow
def test_a_stage_on_responses_of_its_own_is_sampled_once_and_goes_on_when_interrupted(cluster, two_stages, capsys):
    plan = plan_run(two_stages, prepare(two_stages))
    train(plan, open_tracker(two_stages))
    full, key = plan.strategies[0].stages
    (found,) = (two_stages.run_dir / "samples").glob("*/*/yield.json")
    whole, summary = YIELD.read(found), read_summary(key.directory)
    assert (whole.rows, whole.samples) == (12, 36)
    assert 0 < whole.outcomes["accepted"] < 36, "a model that is always or never right would show little"
    assert f"{whole.accepted_rows} of 12 rows" in capsys.readouterr().out
    assert summary.own_responses == whole
    assert summary.steps == key.num_steps == 6
    ends, begins = (OBSERVATIONS.read(stage.directory.validation) for stage in (full, key))
    assert begins[0].validation.segments["answer"].nll == pytest.approx(ends[-1].validation.segments["answer"].nll), (
        "one model on the same held-out references"
    )

    store, journal = found.parent / "store", found.parents[1] / "generations.jsonl"
    lines, digest = journal.read_text().splitlines(keepends=True), json.loads((store / "manifest.json").read_text())
    journal.write_text("".join(lines[:5]) + lines[5][:20])  # by a driver that died within a batch, and within a line
    shutil.rmtree(found.parent)
    again = with_own_responses(plan, key, key.stage.data)
    assert sorted(journal.read_text().splitlines(keepends=True)) == sorted(lines)
    assert again.own_responses == whole
    assert again.data.store.digest == digest["content_digest"]
