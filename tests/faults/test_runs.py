"""Faults of a run that Ray drives, through the command line: lost and frozen workers, signals, nodes taken away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from sftkey_dist.config import load_config
from sftkey_dist.journal import read_records
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.stages import plan_stages, stage_job
from sftkey_dist.run_dir import StageDir
from tests.distributed.harness import run_ranks, train
from tests.e2e.conftest import ENTRY_POINT, environment
from tests.e2e.ray_nodes import ray_nodes

SETTINGS = {
    "data": {
        "train": {"adapter": "decision_memos", "limit": 64},
        "test": {"adapter": "decision_memos", "split": "test", "limit": 8},
        "max_length_tokens": 400,
    },
    "strategies": ["sft-tag"],
    "optimization": {"global_batch_size": 8, "num_epochs": 29, "learning_rate": 1.0e-3},
    "training": {"micro_batch_tokens": 1600, "checkpoint_every_steps": 10, "collective_timeout_seconds": 8},
    "validation": {"num_examples": 8, "every_steps": 100},
}
NUM_STEPS = 203


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_model) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    file = folder / "config.yaml"
    file.write_text(
        yaml.safe_dump(
            SETTINGS
            | {"model": {"path": str(tiny_model)}, "data": SETTINGS["data"] | {"store_dir": str(folder / "store")}}
        )
    )
    return file


@pytest.fixture(scope="module")
def clean(config, tmp_path_factory) -> StageDir:
    """The stage without faults, and without Ray."""
    run = load_config([config], [f"run_dir={tmp_path_factory.mktemp('clean')}"])
    preparation = prepare(run)
    ((planned,),) = plan_stages(run, preparation).values()
    run_ranks(2, train, [stage_job(run, preparation, preparation.strategies[0], planned)])
    return planned.directory


def command(config: Path, run: Path) -> list[str]:
    return [*ENTRY_POINT, "train", str(config), f"run_dir={run}"]


def stage_of(run: Path) -> StageDir:
    (stage,) = (run / "stages").glob("tagged-full-*")
    return StageDir(stage)


@contextmanager
def running(arguments: list[str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("w") as file:
        process = subprocess.Popen(
            arguments, env=environment(), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], object], process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def steps_done(run: Path) -> int:
    stages = list((run / "stages").glob("tagged-full-*/metrics.jsonl"))
    return len(read_records(stages[0])) if stages else 0


def pid_of_rank(run: Path, rank: int) -> int:
    return int(json.loads(stage_of(run).heartbeat(rank).read_text())["pid"])


def assert_same(run: Path, clean: StageDir) -> None:
    stage = stage_of(run)
    for file in ("metrics.jsonl", "validation.jsonl", "model/model.safetensors"):
        assert (stage.path / file).read_bytes() == (clean.path / file).read_bytes(), file
    assert len(read_records(stage.metrics)) == NUM_STEPS


def test_a_worker_that_is_killed_and_one_that_freezes_cost_steps_but_change_nothing(config, clean, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    with running([*command(config, run), "tracking.enabled=false"], log) as driver:
        wait_for(lambda: steps_done(run) > 15, driver, log)
        os.kill(pid_of_rank(run, 1), signal.SIGKILL)
        wait_for(lambda: "restart 1 of 3" in log.read_text(), driver, log)
        wait_for(lambda: steps_done(run) > 45, driver, log)
        frozen = pid_of_rank(run, 1)
        os.kill(frozen, signal.SIGSTOP)
        started = time.monotonic()
        wait_for(lambda: log.read_text().count("restart 1 of 3") == 2, driver, log)
        assert time.monotonic() - started < 90
        assert driver.wait(timeout=200) == 0, log.read_text()
    assert "no sign of life from rank 1" in log.read_text()
    assert_same(run, clean)
    events = json.loads(stage_of(run).summary.read_text())["events"]
    assert len(events) == 2


def test_sigterm_saves_a_checkpoint_and_the_next_run_goes_on_from_that_step(config, clean, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    tracking = f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"
    with running([*command(config, run), tracking], log) as driver:
        wait_for(lambda: steps_done(run) > 50, driver, log)
        second = subprocess.run([*command(config, run), tracking], env=environment(), capture_output=True, text=True)
        assert second.returncode == 2
        assert f"another command is at work there, process {driver.pid}" in second.stderr
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(timeout=60) == 128 + signal.SIGTERM, log.read_text()
    said = log.read_text()
    assert "saving a checkpoint after this step" in said
    assert "interrupted; run the same command again" in said
    assert "Traceback" not in said
    stopped_after = steps_done(run)
    assert stopped_after < NUM_STEPS
    statuses = {r.info.status for r in MlflowClient(tracking.removeprefix("tracking.uri=")).search_runs(["1"])}
    assert statuses == {"KILLED"}
    ray = stage_of(run).ray_storage
    ray.mkdir()
    (ray / "checkpoint_manager_snapshot.json").write_text("{")  # nothing of Ray's is read
    with running([*command(config, run), tracking], log) as driver:
        wait_for(lambda: steps_done(run) > stopped_after, driver, log)
        assert len(read_records(stage_of(run).timings)) >= stopped_after, "no step was done again"
        assert driver.wait(timeout=120) == 0, log.read_text()
    assert_same(run, clean)


def drain(address: str, node: str) -> None:
    """As a cloud does when it takes a spot instance away, which it says a minute before."""
    arguments = ["drain-node", "--address", address, "--node-id", node, "--deadline-remaining-seconds", "60"]
    arguments += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run(
        [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments],
        env=environment(),
        check=True,
        capture_output=True,
    )


def other_node(address: str) -> str:
    """The node that is not the head."""
    script = (
        f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR'); "
        "print(*[n['NodeID'] for n in ray.nodes() if n['Alive'] and 'node:__internal_head__' not in n['Resources']])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True)
    return done.stdout.strip()


def test_a_node_that_is_taken_away_is_left_in_time_and_one_that_comes_is_used(config, clean, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    with ray_nodes(2) as nodes:
        arguments = [*command(config, run), f"cluster.address={nodes.address}", "cluster.min_workers=1"]
        with running([*arguments, "tracking.enabled=false"], log) as driver:
            wait_for(lambda: steps_done(run) > 30, driver, log)
            drain(nodes.address, other_node(nodes.address))
            wait_for(lambda: "a node is being taken away: the stage goes on" in log.read_text(), driver, log)
            at_pause = steps_done(run)
            wait_for(lambda: steps_done(run) > at_pause + 5, driver, log)
            nodes.add()
            wait_for(lambda: "there are nodes for more ranks: the stage goes on" in log.read_text(), driver, log)
            assert driver.wait(timeout=200) == 0, log.read_text()
    stage = stage_of(run)
    sizes = [record["world_size"] for record in read_records(stage.timings)]
    assert [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before] == [2, 1, 2]
    measured, expected = read_records(stage.metrics), read_records(clean.metrics)
    assert [record["step"] for record in measured] == list(range(NUM_STEPS))
    for ours, theirs in zip(measured, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
