"""A configuration sent to a token-authenticated Ray cluster as a job, followed, refused, measured and stopped."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.training.checkpoint import newest_step, open_storage
from tests.distributed.harness import free_port
from tests.e2e.conftest import environment, error_line
from tests.e2e.hosts import wait_until
from tests.e2e.ray_nodes import RayNodes, ray_nodes
from tests.markdown import ROOT, block

PORT = free_port()


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with ray_nodes(num_nodes=1, num_cpus=2, dashboard_port=PORT) as nodes:
            yield nodes


@pytest.fixture
def dashboard(nodes):
    return f"http://127.0.0.1:{PORT}"


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


def test_all_runs_of_a_study_and_all_trials_of_a_tuning_are_one_job(sftkey, tiny_config, tmp_path, dashboard, paths):
    alone = {"cluster": {"num_workers": 1}, "validation": {"num_examples": 4}}
    settings = yaml.safe_load(tiny_config.read_text()) | alone
    study = {"title": "Tiny", "seeds": [1, 2], "runs_at_a_time": 2, "variants": {"base": {}}}
    tune = {"strategy": "sft-tag", "keys": {"optimization.num_epochs": {"grid": [1, 2]}}, "metric": "validation/loss"}
    for name, section in {"study": study, "tune": tune}.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings | {name: section}))
        done = sftkey("submit", file, *paths, f"run_dir={tmp_path}/shared/{name}", "--address", dashboard)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{name}.yaml" not in done.stdout, "the job reads the copy that was sent"
    page = (tmp_path / "shared/study/RESULTS.md").read_text()
    assert " 2 x 8 |" in page
    assert f"`sftkey run {tmp_path}/shared/study/sftkey-job.yaml cluster.address=auto`" in page
    assert (tmp_path / "shared/study/sftkey-job.yaml").is_file(), "what was sent is removed with the job"
    assert "The best of 2 finished trials" in (tmp_path / "shared/tune/best.yaml").read_text()


def test_a_job_that_cannot_run_says_why_and_an_unknown_one_is_named(sftkey, tiny_config, dashboard, paths):
    done = sftkey("submit", tiny_config, *paths, "cluster.num_workers=64", "--address", dashboard)
    assert done.returncode == 1, done.stdout
    assert "error: 64 workers with 1 CPU each are needed, the cluster has room for 2 on 1 nodes" in done.stdout, (
        "the job's own message is in its log"
    )
    assert "failed" in done.stderr
    unknown = sftkey("job", "status", "nothing", "--address", dashboard)
    assert unknown.returncode == 2
    assert "nothing" in error_line(unknown)


def test_a_stopped_study_leaves_a_checkpoint_of_each_run_at_work_and_a_wrong_token_is_refused(
    sftkey, tiny_config, tmp_path, dashboard, paths, monkeypatch
):
    file, log = tmp_path / "study.yaml", tmp_path / "job.log"
    settings = yaml.safe_load(tiny_config.read_text()) | {"cluster": {"num_workers": 1}}
    study = {"title": "Long", "seeds": [1, 2, 3], "runs_at_a_time": 2, "variants": {"base": {}}}
    file.write_text(yaml.safe_dump(settings | {"study": study}))
    done = sftkey("submit", file, *paths, "optimization.num_epochs=500", "--no-wait", "--address", dashboard)
    assert done.returncode == 0, done.stderr
    identifier = done.stdout.split()[1].rstrip(":")
    log.write_text(done.stdout)
    journals = f"shared/run/base/*/{StageDir(Path('stages/*')).metrics}"
    wait_until(lambda: sum(len(read_records(one)) > 2 for one in tmp_path.glob(journals)) == 2, log, 400)
    assert sftkey("job", "stop", identifier, "--address", dashboard).returncode == 0
    deadline = time.monotonic() + 60
    while sftkey("job", "status", identifier, "--address", dashboard).stdout.strip() != "STOPPED":
        assert time.monotonic() < deadline
    for journal in tmp_path.glob(journals):
        assert newest_step(open_storage(StageDir(journal.parent).checkpoints)) == len(read_records(journal))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    refused = sftkey("submit", tiny_config, *paths, "--address", dashboard)
    assert refused.returncode == 2
    assert "token" in error_line(refused).lower()


def test_a_plain_ray_job_trains_exports_metrics_leaves_a_checkpoint_when_stopped_and_fails_in_a_line(
    tiny_config, tmp_path, dashboard, nodes
):
    """The commands of docs/clusters.md."""
    folder, log = tmp_path / "sent", tmp_path / "job.log"
    folder.mkdir()
    settings = yaml.safe_load(tiny_config.read_text()) | {"strategies": ["sft-tag"]}
    settings["optimization"]["num_epochs"] = 500
    settings["tracking"] = {"enabled": False, "also": ["ray"]}
    (folder / "my.yaml").write_text(yaml.safe_dump(settings))
    submit, stop = (commands(f"ray job {verb}", dashboard, tmp_path) for verb in ("submit", "stop"))

    with log.open("w") as written:
        job = subprocess.Popen(["bash", "-ec", submit], cwd=folder, env=with_ray(), stdout=written, stderr=written)
    metrics = tmp_path / "shared" / "runs" / "mine" / "stages"
    wait_until(lambda: job.poll() is not None or exports_what_is_recorded(nodes, metrics), log, 120)
    assert job.poll() is None, log.read_text()
    wait_until(lambda: re.search(r"sft-tag stage 1/1 \(full\): \d+/4000 loss \d", log.read_text()), log, 60)
    done = subprocess.run(["bash", "-ec", stop], env=with_ray(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    job.wait(30)
    assert "saving a checkpoint after this step" in log.read_text()
    (stage,) = metrics.iterdir()
    assert newest_step(open_storage(StageDir(stage).checkpoints)) == len(read_records(stage / "metrics.jsonl"))

    refused = submit.replace("mine --working-dir", "refused --working-dir") + " cluster.num_workers=64"
    done = subprocess.run(
        ["bash", "-ec", refused], cwd=folder, env=with_ray(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stdout
    assert "Job 'refused' failed" in done.stdout + done.stderr
    assert "\nerror: 64 workers with 1 CPU each are needed" in done.stdout
    assert "Traceback" not in done.stdout


def commands(holding: str, dashboard: str, folder: Path) -> str:
    text = block(ROOT / "docs" / "clusters.md", "bash", holding).strip()
    return text.replace("http://head:8265", dashboard).replace("/shared", f"{folder}/shared")


def with_ray() -> dict[str, str]:
    return environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def exports_what_is_recorded(nodes: RayNodes, stages: Path) -> bool:
    """Whether the endpoint has the newest step's values as the journals have them; a step may end in between."""
    exported = scrape(nodes.metrics_ports[0])
    if "sftkey_step" not in exported or "sftkey_ranks" not in exported:
        return False
    (stage,) = stages.iterdir()
    steps, timings = read_records(stage / "metrics.jsonl"), read_records(stage / "timings.jsonl")
    (newest,) = exported["sftkey_step"].values()
    until = steps[: int(newest) + 1]
    expected = {
        "sftkey_step": {"": until[-1]["step"]},
        "sftkey_loss_nats": {"": until[-1]["loss"]},
        "sftkey_learning_rate": {"": until[-1]["learning_rate"]},
        "sftkey_tokens_total": {"": sum(step["tokens"] for step in until)},
        "sftkey_tokens_per_second": {"": timings[int(newest)]["tokens_per_second"]},
        "sftkey_peak_memory_bytes": {"": timings[int(newest)]["peak_memory_gib"] * 2**30},
        "sftkey_ranks": {"": 2},
        "sftkey_segment_nll_nats": {name: found["nll"] for step in until for name, found in step["segments"].items()},
    }
    return {name: exported[name] for name in expected} == expected


def scrape(port: int) -> dict[str, dict[str, float]]:
    """The values of our metrics by segment, of a node's endpoint."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in re.findall(r"^ray_(sftkey_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert (tags["run"], tags["strategy"], tags["stage"]) == ("mine", "sft-tag", "full")
        found.setdefault(name, {})[tags.get("segment", "")] = float(value)
    return found
