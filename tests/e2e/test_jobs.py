"""A configuration sent to a token-authenticated Ray cluster as a job, followed, refused and stopped."""

import time

import pytest

from tests.distributed.harness import free_port
from tests.e2e.conftest import error_line
from tests.e2e.ray_nodes import ray_cluster


@pytest.fixture(scope="module")
def dashboard():
    port = free_port()
    with ray_cluster(num_nodes=1, num_cpus=2, dashboard_port=port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def paths(tmp_path):
    return [f"run_dir={tmp_path}/shared/run", f"data.store_dir={tmp_path}/shared/store", "strategies=[sft-tag]"]


def test_a_job_works_on_the_cluster_and_its_log_is_followed(sftkey, tiny_config, tmp_path, dashboard, paths):
    """test_hosts.py has one that trains."""
    done = sftkey("submit", tiny_config, *paths, "--address", dashboard, "--verb", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 of 64 rows kept" in done.stdout
    assert (tmp_path / "shared" / "run" / "data_report.json").is_file()
    (identifier,) = [line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("job ")]
    assert sftkey("job", "status", identifier, "--address", dashboard).stdout.strip() == "SUCCEEDED"
    assert "64 of 64 rows kept" in sftkey("job", "logs", identifier, "--address", dashboard).stdout


def test_a_job_that_cannot_run_says_why_and_an_unknown_one_is_named(sftkey, tiny_config, dashboard, paths):
    done = sftkey("submit", tiny_config, *paths, "cluster.num_workers=64", "--address", dashboard)
    assert done.returncode == 1, done.stdout
    assert "error: 64 workers with 1 CPUs each are needed, the cluster has room for 2 on 1 nodes" in done.stdout, (
        "the job's own message is in its log"
    )
    assert "failed" in done.stderr
    unknown = sftkey("job", "status", "nothing", "--address", dashboard)
    assert unknown.returncode == 2
    assert "nothing" in error_line(unknown)


def test_a_job_is_stopped_and_a_wrong_token_refused(sftkey, tiny_config, dashboard, paths, monkeypatch):
    long = ["optimization.num_epochs=500", "--no-wait"]
    done = sftkey("submit", tiny_config, *paths, *long, "--address", dashboard)
    assert done.returncode == 0, done.stderr
    identifier = done.stdout.split()[1].rstrip(":")
    assert sftkey("job", "stop", identifier, "--address", dashboard).returncode == 0
    deadline = time.monotonic() + 60
    while sftkey("job", "status", identifier, "--address", dashboard).stdout.strip() != "STOPPED":
        assert time.monotonic() < deadline
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    refused = sftkey("submit", tiny_config, *paths, "--address", dashboard)
    assert refused.returncode == 2
    assert "token" in error_line(refused).lower()
