"""A run on hosts of its own: submitted from one, trained on two, tracked on another; hosts are lost, join and go."""

import json
import re
import secrets
import sys
from pathlib import Path

import pytest
import yaml

from sftkey_dist.config import load_config
from sftkey_dist.run_dir.journal import read_records
from tests.distributed.runs import train_without_ray
from tests.e2e.conftest import ENTRY_POINT, environment
from tests.e2e.hosts import Host, can_make_hosts, hosts, wait_until
from tests.mlflow_server import WITHOUT_JOBS

pytestmark = [pytest.mark.long, pytest.mark.skipif(not can_make_hosts(), reason="needs root, ip and unshare")]

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block", "--num-cpus", "1"]
RAY += ["--disable-usage-stats", "--object-store-memory", str(128 * 2**20)]
NOTICE_LOST_NODES_SOON = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}


@pytest.fixture
def config(tmp_path, tiny_model) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "run_dir": str(tmp_path / "run"),
                "model": {"path": str(tiny_model)},
                "data": {
                    "train": {"adapter": "decision_memos", "limit": 64},
                    "test": {"adapter": "decision_memos", "split": "test", "limit": 8},
                    "max_length_tokens": 400,
                    "store_dir": str(tmp_path / "store"),
                },
                "strategies": ["sftkey-tag"],
                "optimization": {"global_batch_size": 8, "num_epochs": 45, "learning_rate": 1.0e-3},
                "key_stage": {"optimization": {"num_epochs": 2}},
                "training": {
                    "micro_batch_tokens": 1600,
                    "checkpoint_every_steps": 10,
                    "collective_timeout_seconds": 10,
                },
                "evaluation": {"max_new_tokens": 8, "batch_size": 8},
                "cluster": {"network_interface": "eth0", "min_workers": 1},
            }
        )
    )
    return file


def test_a_submitted_run_outlives_a_lost_host_uses_a_new_one_and_leaves_one_that_is_taken_away(config, tmp_path):
    expected = train_without_ray(load_config([config], [f"run_dir={tmp_path / 'expected'}"]))
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    python = {"PATH": f"{Path(sys.executable).parent}:{environment()['PATH']}"}
    env = environment() | secret | python | NOTICE_LOST_NODES_SOON
    with hosts("head", "worker", "spare", "tracking", "user") as there:
        head, tracking, job = there["head"], there["tracking"], tmp_path / "job.log"
        server = [sys.executable, "-m", "mlflow", "server", "--host", tracking.address, "--port", "5000"]
        server += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
        server += ["--allowed-hosts", "*", "--artifacts-destination", str(tmp_path / "artifacts")]
        tracking.start(server, environment() | WITHOUT_JOBS, tmp_path / "mlflow.log")
        dashboard = ["--dashboard-host", head.address, "--dashboard-port", "8265"]
        start_node(head, ["--head", "--port", "6379", *dashboard], env, tmp_path)
        join = ["--address", f"{head.address}:6379"]
        start_node(there["worker"], join, env, tmp_path)
        wait_until(lambda: "startup complete" in (tmp_path / "mlflow.log").read_text(), tmp_path / "mlflow.log", 90)
        submit = [*ENTRY_POINT, "submit", str(config), "--address", f"http://{head.address}:8265"]
        submit += [f"tracking.uri=http://{tracking.address}:5000"]
        submitted = there["user"].start(submit, env, job)

        def says(text: str) -> None:
            wait_until(lambda: text in job.read_text() or submitted.poll() is not None, job, 240)

        wait_until(lambda: steps_of(tmp_path) > 30 or submitted.poll() is not None, job, 300)
        there["worker"].cut()
        says("restart 1 of 3")
        start_node(there["spare"], join, env, tmp_path)
        says("there are nodes for more ranks: the stage goes on")
        joined_at = steps_of(tmp_path)
        wait_until(lambda: steps_of(tmp_path) > joined_at + 10 or submitted.poll() is not None, job, 240)
        take_away(there["spare"], head, env, tmp_path / "drain.log")
        says("a node is being taken away: the stage goes on")
        assert submitted.wait(timeout=300) == 0, job.read_text()
    log = job.read_text()
    checked = re.search(r"^(2 nodes checked in|warning: 10\.77\.0\.\d: )", log, re.MULTILINE)
    assert checked, log
    assert checked.start() < log.index("starting ")
    for number, stage in enumerate(expected):
        trained = tmp_path / "run" / "stages" / stage.path.name
        sizes = [record["world_size"] for record in read_records(trained / "timings.jsonl")]
        changes = [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before]
        assert changes == [[2, 1, 2, 1], [1]][number]
        measured, planned = read_records(trained / "metrics.jsonl"), read_records(stage.metrics)
        for ours, theirs in zip(measured, planned, strict=True):
            assert ours["step"] == theirs["step"]
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    (row,) = json.loads((tmp_path / "run" / "comparison.json").read_text())["rows"]
    assert row["n"] == 8
    assert row["mlflow_run_id"]
    planted = secret["RAY_AUTH_TOKEN"].encode()
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not [file for file in (*files, job, tmp_path / "server.db") if planted in file.read_bytes()]


def start_node(host: Host, role: list[str], env: dict[str, str], folder: Path) -> None:
    log = folder / f"node-{host.address}.log"
    host.start([*RAY, *role, "--node-ip-address", host.address], env, log)
    wait_until(lambda: "Ray runtime started" in log.read_text(), log, 120)


def take_away(host: Host, head: Host, env: dict[str, str], log: Path) -> None:
    """As a cloud does with a spot instance, which it says a minute before."""
    script = f"""
import time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
gcs = GcsClient(address="{head.address}:6379")
(node,) = [i for i, info in gcs.get_all_node_info().items() if info.node_manager_address == "{host.address}"]
deadline_ms = int(time.time() + 60) * 1000
print(gcs.drain_node(node.hex(), DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "spot", deadline_ms))
"""
    assert head.start([sys.executable, "-c", script], env, log).wait(60) == 0, log.read_text()


def steps_of(folder: Path) -> int:
    found = list((folder / "run" / "stages").glob("tagged-full-*/metrics.jsonl"))
    return len(read_records(found[0])) if found else 0
