"""A run on hosts of its own: submitted from one, trained on two, tracked on another; one loses its network."""

import json
import secrets
import sys
from pathlib import Path

import pytest
import yaml

from sftkey_dist.config import load_config
from sftkey_dist.journal import read_records
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.stages import plan_stages, stage_job
from tests.distributed.harness import run_ranks, train
from tests.e2e.conftest import ENTRY_POINT, environment
from tests.e2e.hosts import can_make_hosts, hosts, wait_until

pytestmark = pytest.mark.skipif(not can_make_hosts(), reason="needs root, ip and unshare")

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
                "optimization": {"global_batch_size": 8, "num_epochs": 20, "learning_rate": 1.0e-3},
                "key_stage": {"optimization": {"num_epochs": 2}},
                "training": {
                    "micro_batch_tokens": 1600,
                    "checkpoint_every_steps": 10,
                    "collective_timeout_seconds": 10,
                },
                "evaluation": {"max_new_tokens": 8, "batch_size": 8},
                "cluster": {"network_interface": "eth0", "wait_for_nodes_seconds": 120},
            }
        )
    )
    return file


def without_faults(config: Path, folder: Path) -> list[Path]:
    """Both stages' folders, trained without Ray."""
    run = load_config([config], [f"run_dir={folder}"])
    preparation = prepare(run)
    (plan,) = plan_stages(run, preparation).values()
    run_ranks(2, train, [stage_job(run, preparation, preparation.strategies[0], planned) for planned in plan])
    return [planned.directory.path for planned in plan]


def test_a_submitted_run_outlives_a_host_that_loses_its_network(config, tmp_path):
    expected = without_faults(config, tmp_path / "expected")
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    python = {"PATH": f"{Path(sys.executable).parent}:{environment()['PATH']}"}
    env = environment() | secret | python | NOTICE_LOST_NODES_SOON
    with hosts("head", "worker", "spare", "tracking", "user") as there:
        head, tracking = there["head"], there["tracking"]
        nodes, job = tmp_path / "nodes.log", tmp_path / "job.log"
        dashboard = ["--dashboard-host", head.address, "--dashboard-port", "8265"]
        head.start([*RAY, "--head", "--node-ip-address", head.address, "--port", "6379", *dashboard], env, nodes)
        join = [*RAY, "--address", f"{head.address}:6379", "--node-ip-address"]
        wait_until(lambda: "Ray runtime started" in nodes.read_text(), nodes, 60)
        there["worker"].start([*join, there["worker"].address], env, nodes)
        server = [sys.executable, "-m", "mlflow", "server", "--host", tracking.address, "--port", "5000"]
        server += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
        server += ["--allowed-hosts", "*", "--artifacts-destination", str(tmp_path / "artifacts")]
        tracking.start(server, environment(), tmp_path / "mlflow.log")
        wait_until(lambda: "startup complete" in (tmp_path / "mlflow.log").read_text(), tmp_path / "mlflow.log", 90)
        wait_until(lambda: nodes.read_text().count("Ray runtime started") == 2, nodes, 60)
        submit = [*ENTRY_POINT, "submit", str(config), "--address", f"http://{head.address}:8265"]
        submit += [f"tracking.uri=http://{tracking.address}:5000"]
        submitted = there["user"].start(submit, env, job)
        wait_until(lambda: steps_of(tmp_path) > 30 or submitted.poll() is not None, job, 180)
        there["worker"].cut()
        wait_until(lambda: "restart 1 of 3" in job.read_text() or submitted.poll() is not None, job, 120)
        there["spare"].start([*join, there["spare"].address], env, nodes)
        assert submitted.wait(timeout=300) == 0, job.read_text()
    for stage in expected:
        trained = tmp_path / "run" / "stages" / stage.name
        for file in ("metrics.jsonl", "model/model.safetensors"):
            assert (trained / file).read_bytes() == (stage / file).read_bytes(), (stage.name, file)
    (row,) = json.loads((tmp_path / "run" / "comparison.json").read_text())["rows"]
    assert row["n"] == 8
    assert row["mlflow_run_id"]
    planted = secret["RAY_AUTH_TOKEN"].encode()
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not [file for file in (*files, job, tmp_path / "server.db") if planted in file.read_bytes()]


def steps_of(folder: Path) -> int:
    found = list((folder / "run" / "stages").glob("tagged-full-*/metrics.jsonl"))
    return len(read_records(found[0])) if found else 0
