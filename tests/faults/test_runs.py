"""Faults of a run that Ray drives, through the command line: lost and frozen workers, signals.

tests/e2e/test_hosts.py has those of hosts.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from sftkey_dist.config import load_config
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.journal import read_records
from tests.distributed.runs import train_without_ray
from tests.e2e.conftest import environment
from tests.e2e.forked import ForkedCommand
from tests.processes import command_of, descendants, training_workers

pytestmark = pytest.mark.long

SETTINGS = {
    "data": {
        "train": {"adapter": "decision_memos", "limit": 64},
        "test": {"adapter": "decision_memos", "split": "test", "limit": 8},
        "max_length_tokens": 400,
    },
    "strategies": ["sft-tag"],
    "optimization": {"global_batch_size": 8, "num_epochs": 17, "learning_rate": 1.0e-3},
    "training": {"micro_batch_tokens": 1600, "checkpoint_every_steps": 10, "collective_timeout_seconds": 8},
    "validation": {"num_examples": 8, "every_steps": 100},
}
NUM_STEPS = 119


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
    (stage,) = train_without_ray(load_config([config], [f"run_dir={tmp_path_factory.mktemp('clean')}"]))
    return stage


def command(config: Path, run: Path) -> list[str]:
    return ["train", str(config), f"run_dir={run}"]


def stage_of(run: Path) -> StageDir:
    (stage,) = (run / "stages").glob("tagged-full-*")
    return StageDir(stage)


@contextmanager
def running(arguments: list[str], log: Path) -> Iterator[ForkedCommand]:
    log.touch()
    process = ForkedCommand(arguments, log.parent, environment(), log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], process: ForkedCommand, log: Path, seconds: float = 120) -> None:
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


def test_killed_and_frozen_workers_and_a_signal_cost_steps_but_change_nothing(config, clean, tmp_path):
    """One run through all of them; a start costs more than the training."""
    run, log = tmp_path / "run", tmp_path / "log"
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = [*command(config, run), f"tracking.uri={tracking}"]
    with running(arguments, log) as driver:
        wait_for(lambda: steps_done(run) > 15, driver, log)
        os.kill(pid_of_rank(run, 1), signal.SIGKILL)
        wait_for(lambda: "restart 1 of 3" in log.read_text(), driver, log)
        assert "rank 1: its process was lost" in log.read_text()
        wait_for(lambda: steps_done(run) > 35, driver, log)
        os.kill(pid_of_rank(run, 1), signal.SIGSTOP)
        # Now, because steps are over quickly, and the start of a command is not.
        with running(arguments, tmp_path / "second") as second:
            assert second.wait(timeout=60) == 2
        assert f"another command is using this run directory: process {driver.pid}" in (tmp_path / "second").read_text()
        wait_for(lambda: log.read_text().count("restart 1 of 3") == 2, driver, log, seconds=60)
        assert "no sign of life from rank 1" in log.read_text()
        wait_for(lambda: steps_done(run) > 55, driver, log)
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
        ):  # to all of it and together, as a job may be ended
            os.killpg(driver.pid, number)
        first_of_both = {128 + signal.SIGTERM, 128 + signal.SIGINT}  # which one Python sees first is chance
        assert driver.wait(timeout=60) in first_of_both, log.read_text()
    stopped_after = check_stop(run, log)
    assert {found.info.status for found in MlflowClient(tracking).search_runs(["1"])} == {"KILLED"}
    leave_garbage_of_ray(run)
    with running(arguments, log) as driver:
        assert driver.wait(timeout=120) == 0, log.read_text()
    timings = [record["step"] for record in read_records(stage_of(run).timings)]
    assert timings == sorted(set(timings)), "no step was done again"
    assert len(timings) == NUM_STEPS > stopped_after
    assert_same(run, clean)
    events = json.loads(stage_of(run).summary.read_text())["events"]
    assert len(events) == 3


def test_a_signal_to_the_whole_group_ends_a_start_at_once(config, tmp_path):
    """The terminal is closed while Ray's processes come up."""
    run, log = tmp_path / "run", tmp_path / "log"
    with running(command(config, run), log) as driver:
        wait_for(lambda: has_started("raylet", driver.pid), driver, log)
        os.killpg(driver.pid, signal.SIGHUP)
        assert driver.wait(timeout=20) == 128 + signal.SIGHUP, log.read_text()
    assert "Traceback" not in log.read_text()
    assert not RunDir(run).lock.exists()


def test_a_signal_ends_a_start_whose_worker_is_frozen(config, tmp_path):
    """Nothing has been done since the newest checkpoint, and the worker would never come to a step."""
    run, log = tmp_path / "run", tmp_path / "log"
    with running(command(config, run), log) as driver:
        wait_for(lambda: workers_of(driver.pid), driver, log)
        for worker in workers_of(driver.pid):
            worker.suspend()
        os.killpg(driver.pid, signal.SIGTERM)
        assert driver.wait(timeout=30) == 128 + signal.SIGTERM, log.read_text()
    said = log.read_text()
    assert "ending before the first step" in said
    assert "Traceback" not in said
    assert not workers_of(driver.pid)


def test_workers_that_do_not_start_end_with_their_controller_and_those_that_do_go_on():
    script = """
import sys, time
from sftkey_dist.training.workers.ray_trainer import StartLimit
limit = StartLimit(float(sys.argv[1]))
with limit.on_worker_group_start():
    time.sleep(float(sys.argv[2]))
time.sleep(1.0)
"""
    for seconds, start, ended in ((0.5, 60.0, -signal.SIGKILL), (0.5, 0.0, 0)):
        done = subprocess.run([sys.executable, "-c", script, str(seconds), str(start)], timeout=120)
        assert done.returncode == ended


def workers_of(driver: int) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in training_workers({driver})]


def has_started(name: str, driver: int) -> bool:
    return any(Path(command[0]).name == name for pid in descendants(driver) if (command := command_of(pid)))


def check_stop(run: Path, log: Path) -> int:
    """What a stopped command says, and the steps that were done."""
    said = log.read_text()
    assert "saving a checkpoint after this step" in said
    assert "interrupted; run the same command again" in said
    assert "Traceback" not in said
    assert steps_done(run) < NUM_STEPS
    return steps_done(run)


def leave_garbage_of_ray(run: Path) -> None:
    """Nothing of Ray's is read."""
    ray = RunDir(run).ray_storage
    ray.mkdir()
    (ray / "checkpoint_manager_snapshot.json").write_text("{")
