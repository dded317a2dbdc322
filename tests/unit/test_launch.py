"""What starts Ray elsewhere: each file against its schema, the Slurm script against stand-ins of what it calls."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sftkey_dist.config import load_config

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.33"
SCRIPTS = [ROOT / "launch/slurm/sftkey.sbatch", ROOT / "launch/local/nodes.sh"]


def tool(name):
    return str(Path(sys.executable).parent / name)


def documents(name):
    return list(yaml.safe_load_all((ROOT / "launch" / "kuberay" / name).read_text()))


def clusters():
    (cluster,) = documents("raycluster.yaml")
    (job,) = documents("rayjob.yaml")
    return [cluster["spec"], job["spec"]["rayClusterSpec"]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_pass_shellcheck(script):
    done = subprocess.run([tool("shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


def test_yaml_is_tidy_and_the_dockerfile_passes_hadolint():
    done = subprocess.run([tool("yamllint"), "launch", "docker", "configs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([tool("hadolint"), ROOT / "docker/Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["namespace.yaml", "mlflow.yaml"])
def test_kubernetes_objects_are_what_kubernetes_takes(name):
    for document in documents(name):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_pods_of_the_ray_clusters_are_what_kubernetes_takes_and_run_without_privileges():
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
            assert pod["spec"]["securityContext"]["runAsNonRoot"]
            for container in pod["spec"]["containers"]:
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert not container["securityContext"]["allowPrivilegeEscalation"]
                mounted = {mount["name"] for mount in container["volumeMounts"]}
                assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_ray_clusters_ask_for_a_token_and_scale_between_bounds():
    """Field names are KubeRay's v1 API."""
    for spec in clusters():
        assert spec["authOptions"] == {"mode": "token", "secretName": "ray-auth"}
        assert spec["enableInTreeAutoscaling"]
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert set(spec) == {
            "rayVersion",
            "authOptions",
            "enableInTreeAutoscaling",
            "autoscalerOptions",
            "headGroupSpec",
            "workerGroupSpecs",
        }


def test_no_file_holds_a_secret_and_every_start_of_ray_is_authenticated():
    files = [file for folder in ("launch", "docker") for file in (ROOT / folder).rglob("*") if file.is_file()]
    for file in files:
        text = file.read_text()
        assert not re.search(r"[0-9a-f]{32}|AKIA[0-9A-Z]{16}|-----BEGIN", text), file
        if "ray start" in text or "kind: Ray" in text or '"ray", "start"' in text:
            assert "RAY_AUTH_MODE" in text or "mode: token" in text, file


def test_the_jobs_command_is_one_that_the_command_line_takes():
    (job,) = documents("rayjob.yaml")
    program, verb, _, *overrides = job["spec"]["entrypoint"].split()
    assert (program, verb) == ("sftkey", "run")
    config = load_config([ROOT / "configs/qwen2_5_7b_gsm8k.yaml"], overrides)
    workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    gpus = workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert config.cluster.num_workers == workers["replicas"] * gpus
    assert config.cluster.wait_for_nodes_seconds > 0
    assert config.run_dir.is_absolute()


def test_compose_publishes_on_loopback_only_and_drops_capabilities():
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2
    for name in ("head", "worker", "mlflow"):
        assert compose["services"][name]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_cloud_clusters_use_the_token_file_and_a_shared_file_system(cloud):
    config = yaml.safe_load((ROOT / f"launch/cloud/{cloud}.yaml").read_text())
    assert config["head_node_type"] in config["available_node_types"]
    assert {"RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=/home/ubuntu/.ray-token"} <= {
        option.removeprefix("--env ") for option in config["docker"]["run_options"]
    }
    assert any(" mount " in command for command in config["initialization_commands"])
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][0]


@pytest.fixture
def slurm(tmp_path):
    """The script with stand-ins for what it calls; each writes down how it was called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "calls"
    note = f'echo "$(basename "$0") $*" >> {log}\n'
    stand_ins = {
        "scontrol": note + 'if [ "$1" = show ]; then printf "node1\\nnode2\\nnode3\\n"; fi',
        "srun": note + 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "hostname": "echo 10.1.2.3",
        "ray": note
        + f'stat -c %a "$RAY_AUTH_TOKEN_PATH" >> {log}; echo "auth $RAY_AUTH_MODE" >> {log}; exec sleep 100',
        "sftkey": note + f'trap "echo interrupted >> {log}; exit 143" TERM; for i in $(seq 100); do sleep 0.1; '
        f"test -e {tmp_path}/end && exit 7; done",
    }
    for name, script in stand_ins.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    process = subprocess.Popen(
        [SCRIPTS[0], "my.yaml", "seed=1"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        while not log.exists() or "\nsftkey " not in log.read_text() or log.read_text().count("auth ") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, log, tmp_path
    finally:
        process.kill()
        process.communicate()


def test_the_slurm_script_starts_a_node_on_each_host_and_gives_back_the_runs_status(slurm):
    process, log, folder = slurm
    (token,) = folder.glob(".sftkey-ray-token.*")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    calls = log.read_text()
    starts = re.findall(r"^ray start (.*)$", calls, re.MULTILINE)
    assert len(starts) == 3
    assert sum("--head --node-ip-address=10.1.2.3" in start for start in starts) == 1
    assert sum("--address=10.1.2.3:6379" in start for start in starts) == 2
    assert all("--num-gpus=4" in start for start in starts)
    assert token.read_text() not in calls, "a command line is seen by everyone on the host"
    assert set(re.findall(r"^auth (\w+)$", calls, re.MULTILINE)) == {"token"}
    assert set(re.findall(r"^(\d{3})$", calls, re.MULTILINE)) == {"600"}
    (run,) = re.findall(r"^sftkey (.*)$", calls, re.MULTILINE)
    assert run.startswith("run my.yaml seed=1 cluster.address=10.1.2.3:6379")
    assert "cluster.num_workers=12 cluster.gpus_per_worker=1 cluster.cpus_per_worker=4" in run
    (folder / "end").touch()
    process.communicate(timeout=20)
    assert process.returncode == 7
    assert not list(folder.glob(".sftkey-ray-token.*"))


def test_preempted_the_slurm_script_interrupts_the_run_queues_again_and_leaves_no_token(slurm):
    process, log, folder = slurm
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    calls = log.read_text()
    assert "\ninterrupted\n" in calls
    assert "scontrol requeue 42" in calls
    assert calls.index("interrupted") < calls.index("requeue")
    assert not list(folder.glob(".sftkey-ray-token.*"))
