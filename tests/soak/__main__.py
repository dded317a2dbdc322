"""Runs under a fault every 20 to 40 seconds, from a seeded schedule; every round must end in the same bytes.

``python -m tests.soak --minutes 60 --seed 0``. Each round trains, generates and has a judge rule that fails in every
way; every other round keeps its checkpoints in an object store. As root the ranks lie on hosts of their own, whose
links are cut, and the disk is filled up too.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from mlflow import MlflowClient

from sftkey_dist.config import load_config
from sftkey_dist.config.data import SourceConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.models.embedded import make_embedded_model
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import read_records
from tests.conftest import TINY_MODEL
from tests.distributed.runs import train_without_ray
from tests.e2e.conftest import ENTRY_POINT
from tests.e2e.hosts import can_make_hosts
from tests.judge_server import RunningJudge, judge_server
from tests.mlflow_server import MlflowServer, mlflow_server
from tests.object_store import KEYS, ObjectStore, object_store
from tests.processes import descendants, kill_all
from tests.soak.places import PrivateCluster, SeveralHosts, several_hosts, signal_one

STEPS, NUM_TEST = 600, 8
SETTINGS = {
    "data": {
        "train": SourceConfig(adapter="decision_memos", limit=64).model_dump(mode="json", exclude_none=True),
        "test": {"adapter": "decision_memos", "split": "test", "limit": NUM_TEST},
        "max_length_tokens": 400,
    },
    "strategies": ["sft-tag"],
    "optimization": {"global_batch_size": 8, "num_epochs": 10_000, "max_steps": STEPS, "learning_rate": 1.0e-3},
    "training": {
        "micro_batch_tokens": 1600,
        "checkpoint_every_steps": 20,
        "collective_timeout_seconds": 10,
        "max_failures": 5,
    },
    "cluster": {"start_timeout_seconds": 60},
    "validation": {"num_examples": 8, "every_steps": 100},
    "evaluation": {"max_new_tokens": 320},
}
JUDGE_FAULTS = {"share_429": 0.1, "share_500": 0.1, "share_hang": 0.05, "share_garbage": 0.1}
SECONDS_BETWEEN_FAULTS = (20.0, 40.0)
DISK_MIB = 64


@dataclass(frozen=True)
class Surroundings:
    """What a round runs in."""

    folder: Path
    config: Path
    place: PrivateCluster | SeveralHosts
    tracking: MlflowServer
    judge: RunningJudge
    store: ObjectStore
    on_small_disk: bool


class Round:
    """One run, started again whenever it ends early."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self.run, self.log = around.folder / f"round-{number}", around.folder / f"round-{number}.log"
        self._around = around
        judge = {"url": around.judge.url, "model": "judge", "timeout_seconds": 1.0, "max_retries": 8}
        overrides = [f"run_dir={self.run}", f"tracking.uri={around.tracking.url}"]
        overrides.append(f"evaluation.judge.judges=[{json.dumps(judge)}]")
        if number % 2:
            overrides.append(f"training.checkpoint_storage={around.store.uri(self.run.name)}")
        self._checkpoints_are_remote = bool(number % 2)
        self._command = [*ENTRY_POINT, "run", str(around.config), *overrides, *around.place.settings]
        self._driver: subprocess.Popen | None = None
        self.exits: Counter[int] = Counter()

    @property
    def stage(self) -> StageDir | None:
        """Once it has begun."""
        found = list((self.run / "stages").glob("tagged-full-*"))
        return StageDir(found[0]) if found else None

    @property
    def is_finished(self) -> bool:
        """Whether the command has done its work."""
        return self._driver is not None and self._driver.poll() == 0

    def keep_running(self) -> None:
        """Start the command if it has ended."""
        if self._is_running:
            return
        if self._driver is not None:
            self.exits[self._driver.returncode] += 1
        with self.log.open("a") as file:
            self._driver = subprocess.Popen(
                self._command,
                env=self._around.place.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def faults(self) -> dict[str, Callable[[], bool]]:
        """What can be done to it; each says whether it found something to do it to."""
        faults = {
            "worker killed": lambda: self._signal_worker(signal.SIGKILL),
            "worker frozen": lambda: self._signal_worker(signal.SIGSTOP),
            "driver killed": self._kill_driver,
            "driver terminated": lambda: self._end_driver(signal.SIGTERM, os.kill),
            "driver's group terminated": lambda: self._end_driver(signal.SIGTERM, os.killpg),
            "driver's group interrupted": lambda: self._end_driver(signal.SIGINT, os.killpg),
            "driver's terminal closed": lambda: self._end_driver(signal.SIGHUP, os.killpg),
            "judge away": self._judge_away,
            "MLflow restarted": self._restart_mlflow,
            "newest checkpoint damaged, worker killed": self._damage_checkpoint,
        }
        faults |= self._around.place.faults()
        if self._checkpoints_are_remote:
            faults["object store away"] = self._object_store_away
        return faults | ({"disk full": self._fill_disk} if self._around.on_small_disk else {})

    def end(self) -> None:
        """Leave nothing behind."""
        if self._is_running:
            self._kill_driver()

    @property
    def _is_running(self) -> bool:
        return self._driver is not None and self._driver.poll() is None

    def _signal_worker(self, number: signal.Signals) -> bool:
        return self._driver is not None and signal_one(self._around.place.workers(self._driver.pid), number)

    def _kill_driver(self) -> bool:
        if not self._is_running or self._driver is None:
            return False
        children = descendants(self._driver.pid)
        self._driver.kill()
        self._driver.wait()
        time.sleep(2.0)
        kill_all(children)
        return True

    def _end_driver(self, number: signal.Signals, send: Callable[[int, int], None]) -> bool:
        """The driver leads a process group of its own."""
        if not self._is_running or self._driver is None:
            return False
        send(self._driver.pid, number)
        try:
            self._driver.wait(120)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"the driver did not end: {self.log}") from None
        return True

    def _restart_mlflow(self) -> bool:
        self._around.tracking.kill()
        time.sleep(5.0)
        self._around.tracking.start()
        return True

    def _judge_away(self) -> bool:
        self._around.judge.process.send_signal(signal.SIGSTOP)
        time.sleep(5.0)
        self._around.judge.process.send_signal(signal.SIGCONT)
        return True

    def _object_store_away(self) -> bool:
        self._around.store.be_away(15.0)
        return True

    def _damage_checkpoint(self) -> bool:
        manifests = sorted(self.stage.checkpoints.glob("step_*/manifest.json")) if self.stage else []
        if not manifests:
            return False
        shard = manifests[-1].with_name("rank_00001.safetensors")
        content = bytearray(shard.read_bytes())
        content[-100] ^= 1
        shard.write_bytes(content)
        return self._signal_worker(signal.SIGKILL)

    def _fill_disk(self) -> bool:
        ballast = self.run.parent / "ballast"
        free = shutil.disk_usage(self.run.parent).free
        ballast.write_bytes(bytes(max(0, free - 100_000)))
        time.sleep(10.0)
        ballast.unlink()
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    with surroundings(scratch) as around:
        soak(options.minutes, options.seed, around)
    shutil.rmtree(scratch)  # after a failure it stays, to be looked at


@contextmanager
def surroundings(scratch: Path) -> Iterator[Surroundings]:
    """Disk, cluster, servers, and what is expected."""
    config, folder, is_root = write_config(scratch), scratch / "disk", os.geteuid() == 0
    os.environ.update(KEYS)
    folder.mkdir()
    with ExitStack() as stack:
        if is_root:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=True)
            stack.push(partial(_unmount, folder))
        server = stack.enter_context(mlflow_server(scratch / "mlflow"))
        place = stack.enter_context(several_hosts(scratch)) if can_make_hosts() else PrivateCluster()
        judge = stack.enter_context(judge_server(place.address, **JUDGE_FAULTS))
        store = stack.enter_context(object_store(place.address))
        yield Surroundings(folder, config, place, server, judge, store, is_root)


def _unmount(disk: Path, *failure: object) -> None:
    """What lay on the disk stays beside it after a failure."""
    if failure[0] is not None:
        shutil.copytree(disk, disk.with_name("disk-at-the-end"))
    subprocess.run(["umount", "--lazy", disk], check=True)


def soak(minutes: float, seed: int, around: Surroundings) -> None:
    """Rounds until the time is over."""
    expected = reference(around.config)
    schedule, survived, started = random.Random(seed), Counter[str](), time.monotonic()
    number, verdicts = 0, None
    while time.monotonic() - started < 60 * minutes:
        this = Round(number, around)
        try:
            survived += one_round(this, schedule)
        finally:
            this.end()
        check_training(this, expected, around)
        verdicts = check_evaluation(this, verdicts)
        elapsed = (time.monotonic() - started) / 60
        print(f"{elapsed:.1f} min, round {number}: same bytes; exits {dict(this.exits)}; survived {dict(survived)}")
        shutil.rmtree(this.run)
        number += 1
    asked = around.judge.counts()
    judged = ", ".join(f"{kind} {asked[kind]}" for kind in ("429", "500", "hang", "garbage"))
    print(f"{survived.total()} faults in {number} rounds survived, every round byte-identical")
    print(f"the judge was asked {asked['requests']} times; {judged}")


def one_round(this: Round, schedule: random.Random) -> Counter[str]:
    """Run the stage to its end, with faults on the way."""
    done: Counter[str] = Counter()
    next_fault = time.monotonic() + schedule.uniform(*SECONDS_BETWEEN_FAULTS)
    while not this.is_finished:
        this.keep_running()
        time.sleep(0.5)
        if time.monotonic() > next_fault:
            name, fault = schedule.choice(list(this.faults().items()))
            if fault():
                done[name] += 1
                print(f"  {time.strftime('%H:%M:%S')} {name}", flush=True)
            next_fault = time.monotonic() + schedule.uniform(*SECONDS_BETWEEN_FAULTS)
    return done


def check_training(this: Round, expected: StageDir, around: Surroundings) -> None:
    """The same bytes as without faults, and every step once in MLflow."""
    stage = this.stage
    if stage is None:
        raise SystemExit("there is no stage")
    for file in ("metrics.jsonl", "validation.jsonl", "model/model.safetensors"):
        if (stage.path / file).read_bytes() != (expected.path / file).read_bytes():
            raise SystemExit(f"{stage.path / file} differs from the run without faults; see {this.log}")
    command = [*ENTRY_POINT, "track", "sync", str(this.run)]
    subprocess.run(command, env=around.place.environment, check=True, capture_output=True)
    client = MlflowClient(around.tracking.url)
    experiment = client.get_experiment_by_name(this.run.name)
    runs = client.search_runs([experiment.experiment_id], "tags.`sftkey.stage` = 'full'")
    steps = [point.step for run in runs for point in client.get_metric_history(run.info.run_id, "loss")]
    if sorted(steps) != list(range(STEPS)):
        raise SystemExit(f"MLflow has {len(steps)} points of {STEPS} steps")


def check_evaluation(this: Round, earlier: list[str] | None) -> list[str]:
    """Every answer is judged, as in the rounds before, and as one who compares texts would judge it."""
    (file,) = this.run.glob("evaluation/*/records.jsonl")
    records = read_records(file)
    verdicts = [json.dumps(record, sort_keys=True) for record in records]
    if len(records) != NUM_TEST or earlier not in (None, verdicts):
        raise SystemExit(f"the judge's verdicts differ from the round before: {file}")
    return verdicts


def write_config(folder: Path) -> Path:
    """The run's configuration, with its model."""
    contract, memos = ResponseContract(), list(generate_memos("train", 60, seed=0))
    texts = ["".join(p.text for p in contract.render(memo.values, form)) for memo in memos for form in Form]
    make_embedded_model(folder / "model", TINY_MODEL, texts, seed=0)
    data = SETTINGS["data"] | {"store_dir": str(folder / "store")}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"model": {"path": str(folder / "model")}, "data": data}))
    return file


def reference(config: Path) -> StageDir:
    """The stage without faults, and without Ray."""
    (stage,) = train_without_ray(load_config([config], [f"run_dir={config.parent / 'reference'}"]))
    print(f"{len(read_records(stage.metrics))} steps without faults are done", flush=True)
    return stage


if __name__ == "__main__":
    main()
