"""Generation as a fan-out of actors: killed and gone on with, nothing is lost and nothing is there twice."""

import json
import os
import signal
import time

import psutil
import pytest
import ray

from sftkey_dist.cluster import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool
from sftkey_dist.evaluation.generation.spread import spread
from sftkey_dist.evaluation.job import EvaluationJob

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
