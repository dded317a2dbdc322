"""The page about a lost node, run on hosts of its own: submitted from one, trained on two, tracked on another."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from sftkey_dist.config import load_config
from sftkey_dist.config.yaml_text import read_yaml
from sftkey_dist.run_dir.journal import read_records
from tests.distributed.runs import train_without_ray
from tests.e2e.conftest import environment
from tests.e2e.hosts import Host, can_make_hosts, hosts, wait_until
from tests.markdown import ROOT, block, snippets_of
from tests.mlflow_server import WITHOUT_JOBS

pytestmark = [pytest.mark.long, pytest.mark.skipif(not can_make_hosts(), reason="needs root, ip and unshare")]

PAGE = ROOT / "docs" / "lost-node.md"
SHARED = "/shared"
"""The folder that the hosts share, on the page."""
SHORT_TIMES = {"checkpoint_every_steps": 10, "collective_timeout_seconds": 10}
NOTICE_LOST_NODES_SOON = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}


class Reader:
    """Follows the page: runs its commands on the hosts, with a folder of the test in place of the one they share."""

    def __init__(self, shared: Path) -> None:
        self._shared = shared
        self._to_run = {snippet.text for snippet in snippets_of(PAGE) if snippet.language == "bash"}
        self._session = self._taken("export RAY_AUTH_MODE")
        python = {"PATH": f"{Path(sys.executable).parent}:{environment()['PATH']}"}
        self.environment = environment() | python | NOTICE_LOST_NODES_SOON

    def runs(self, holding: str, host: Host, log: Path) -> subprocess.Popen:
        """Start the commands that contain a text, in a shell of a host."""
        script = self._session + self._taken(holding)
        return host.start(["bash", "-ec", script.replace(SHARED, str(self._shared))], self.environment, log)

    def has_run_everything(self) -> bool:
        return not self._to_run

    def _taken(self, holding: str) -> str:
        text = block(PAGE, "bash", holding)
        self._to_run.discard(text)
        return text

    def starts_ray(self, holding: str, host: Host) -> None:
        """Start Ray on a host, and wait for it."""
        log = self._shared / f"node-{host.address}.log"
        log.unlink(missing_ok=True)  # of a node that was lost
        self.runs(holding, host, log)
        wait_until(lambda: "Ray runtime started" in log.read_text(), log, 120)


@pytest.fixture
def settings(tmp_path, tiny_model) -> list[Path]:
    """A small model, and the page's file with short times."""
    mine, page = tmp_path / "my.yaml", tmp_path / "cluster.yaml"
    content = read_yaml(block(PAGE, "yaml", "min_workers").replace(SHARED, str(tmp_path)))
    assert content["training"].keys() == SHORT_TIMES.keys()
    page.write_text(yaml.safe_dump(content | {"training": SHORT_TIMES}))
    mine.write_text(
        yaml.safe_dump(
            {
                "model": {"path": str(tiny_model)},
                "data": {
                    "train": {"adapter": "decision_memos", "limit": 64},
                    "test": {"adapter": "decision_memos", "split": "test", "limit": 8},
                    "max_length_tokens": 400,
                },
                "strategies": ["sftkey-tag"],
                "optimization": {"global_batch_size": 8, "num_epochs": 35, "learning_rate": 1.0e-3},
                "key_stage": {"optimization": {"num_epochs": 2}},
                "training": {"micro_batch_tokens": 1600},
                "evaluation": {"max_new_tokens": 8, "batch_size": 8},
                "tracking": {"uri": "http://tracking:5000"},
            }
        )
    )
    return [mine, page]


def test_a_submitted_run_outlives_a_lost_host_that_returns_is_resumed_and_leaves_one_that_is_taken_away(
    settings, tmp_path
):
    with ThreadPoolExecutor(1) as beside, hosts("head", "worker", "tracking", "user") as there:
        undisturbed = load_config(settings, [f"run_dir={tmp_path / 'expected'}"])
        expected = beside.submit(train_without_ray, undisturbed)
        logs = follow_the_page(there, tmp_path)
        stages = expected.result()
    check_what_the_page_quotes(logs)
    check_the_log(logs)
    run = tmp_path / "runs" / "lost-node"
    for number, stage in enumerate(stages):
        trained = run / "stages" / stage.path.name
        sizes = [record["world_size"] for record in read_records(trained / "timings.jsonl")]
        changes = [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before]
        assert changes == [[2, 1, 2, 1], [1]][number]
        measured, planned = read_records(trained / "metrics.jsonl"), read_records(stage.metrics)
        for ours, theirs in zip(measured, planned, strict=True):
            assert ours["step"] == theirs["step"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    (row,) = json.loads((run / "comparison.json").read_text())["rows"]
    assert row["n"] == 8
    assert row["mlflow_run_id"]
    planted = (tmp_path / "ray.token").read_bytes().strip()
    assert len(planted) == 64
    files = [file for file in run.rglob("*") if file.is_file()]
    files += [*tmp_path.glob("*.log"), tmp_path / "server.db"]
    assert not [file for file in files if planted in file.read_bytes()]


def follow_the_page(there: dict[str, Host], folder: Path) -> str:
    """What the two jobs have written when the run is finished."""
    head, worker, user = there["head"], there["worker"], there["user"]
    reader, first, again = Reader(folder), folder / "job.log", folder / "job-again.log"
    start_mlflow(there["tracking"], folder)
    assert reader.runs("openssl", user, folder / "token.log").wait(60) == 0
    reader.starts_ray("ray start --head", head)
    reader.starts_ray("ray start --address", worker)
    wait_until(lambda: "startup complete" in (folder / "mlflow.log").read_text(), folder / "mlflow.log", 90)

    submitted = reader.runs("--submission-id lost-node ", user, first)
    wait_for(submitted, lambda: steps_of(folder) > 30, first)
    worker.cut()
    wait_for(submitted, lambda: "restart 1 of 3" in first.read_text(), first)
    worker.crash()
    worker.mend()
    reader.starts_ray("ray start --address", worker)
    wait_for(submitted, lambda: "there are nodes for more ranks: the stage goes on" in first.read_text(), first)
    joined_at = steps_of(folder)
    wait_for(submitted, lambda: steps_of(folder) > joined_at + 2, first)
    watched = reader.runs("sftkey watch", user, folder / "watch.log")

    assert reader.runs("ray job stop", user, folder / "stop.log").wait(120) == 0
    assert submitted.wait(60) is not None
    submitted = reader.runs("--submission-id lost-node-again", user, again)
    wait_for(submitted, lambda: "continuing on 2 workers" in again.read_text(), again)
    resumed_at = steps_of(folder)
    wait_for(submitted, lambda: steps_of(folder) > resumed_at + 2, again)
    take_away(worker, head, reader.environment, folder)
    wait_for(submitted, lambda: "a node is being taken away: the stage goes on" in again.read_text(), again)
    assert submitted.wait(timeout=300) == 0, again.read_text()
    assert watched.wait(60) == 0
    assert "sftkey-tag stage 1/2" in (folder / "watch.log").read_text()
    assert reader.has_run_everything()
    return first.read_text() + again.read_text()


def start_mlflow(host: Host, folder: Path) -> None:
    server = [sys.executable, "-m", "mlflow", "server", "--host", host.address, "--port", "5000"]
    server += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    server += ["--allowed-hosts", "*", "--artifacts-destination", str(folder / "artifacts")]
    host.start(server, environment() | WITHOUT_JOBS, folder / "mlflow.log")


def wait_for(command: subprocess.Popen, condition: Callable[[], bool], log: Path) -> None:
    """Wait for a condition; the command must not end before."""
    wait_until(lambda: condition() or command.poll() is not None, log, 240)
    assert condition(), log.read_text()[-5000:]


def check_what_the_page_quotes(logs: str) -> None:
    """The lines of the page stand in the logs, with other numbers and with a text for each ellipsis."""
    quoted = [line for snippet in snippets_of(PAGE) if snippet.language == "text" for line in snippet.text.splitlines()]
    assert len(quoted) > 3
    for line in quoted:
        pattern = re.sub(r"\d+", r"\\d+", re.escape(line)).replace("…", ".*")
        assert re.search(pattern, logs), f"{line} is not in {logs}"


def check_the_log(logs: str) -> None:
    checked = re.search(r"^(2 nodes checked in|warning: 10\.77\.0\.\d: )", logs, re.MULTILINE)
    assert checked, logs
    assert checked.start() < logs.index("starting ")


def take_away(host: Host, head: Host, env: dict[str, str], folder: Path) -> None:
    """As a cloud does with a spot instance, which it says a minute before."""
    script = f"""
import time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
gcs = GcsClient(address="{head.address}:6379")
found = gcs.get_all_node_info().items()
(node,) = [i for i, info in found if info.node_manager_address == "{host.address}" and info.state == 0]  # alive
deadline_ms = int(time.time() + 60) * 1000
print(gcs.drain_node(node.hex(), DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "spot", deadline_ms))
"""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "ray.token")}
    log = folder / "drain.log"
    assert head.start([sys.executable, "-c", script], env | token, log).wait(60) == 0, log.read_text()


def steps_of(folder: Path) -> int:
    found = list((folder / "runs" / "lost-node" / "stages").glob("tagged-full-*/metrics.jsonl"))
    return len(read_records(found[0])) if found else 0
