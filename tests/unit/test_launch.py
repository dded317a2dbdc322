"""What starts Ray elsewhere: each file against its schema, each script against stand-ins of what it calls."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sftkey_dist.config import load_config

ROOT = Path(__file__).parents[2]
QWEN2_5_7B = [ROOT / "configs/gsm8k.yaml", ROOT / "configs/models/qwen2_5_7b.yaml"]
KUBERNETES = "1.33"
SLURM, VLLM = ROOT / "launch/slurm/sftkey.sbatch", ROOT / "launch/serve/vllm.sh"
SCRIPTS = [SLURM, VLLM, ROOT / "launch/local/nodes.sh"]


def tool(name):
    return str(Path(sys.executable).parent / name)


def documents(name, rdma=False):
    text = (ROOT / "launch" / "kuberay" / name).read_text()
    if rdma:
        command = re.search(r"sed -i '(.*)'\)", text)[1]  # as the file says
        text = subprocess.run(["sed", command], input=text, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def clusters(rdma=False):
    (cluster,) = documents("raycluster.yaml", rdma)
    (job,) = documents("rayjob.yaml", rdma)
    return [cluster["spec"], job["spec"]["rayClusterSpec"]]


def pod(group):
    """A group's pods, which must be what Kubernetes takes."""
    template = group["template"]
    metadata = {"name": "x", **template.get("metadata", {})}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, KUBERNETES, strict=True
    )
    return template["spec"]


def stand_ins(folder, scripts):
    """Programs in place of those that a script calls; returns the PATH that finds them first."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


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
        sidecar = {mount["name"] for mount in spec.get("autoscalerOptions", {}).get("volumeMounts", [])}
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            spec_of_pod = pod(group)
            assert spec_of_pod["securityContext"]["runAsNonRoot"]
            assert spec_of_pod["automountServiceAccountToken"] is False
            for container in spec_of_pod["containers"]:
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert not container["securityContext"]["allowPrivilegeEscalation"]
                mounted = {mount["name"] for mount in container["volumeMounts"]}
                assert mounted == {volume["name"] for volume in spec_of_pod["volumes"]} - sidecar


def test_only_the_autoscaler_has_a_token_of_kubernetes():
    (account,) = [each for each in documents("namespace.yaml") if each["kind"] == "ServiceAccount"]
    assert account["metadata"]["name"] == "default"
    assert account["automountServiceAccountToken"] is False
    deployment, _ = documents("mlflow.yaml")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    (cluster,) = documents("raycluster.yaml")
    (mount,) = cluster["spec"]["autoscalerOptions"]["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    volumes = pod(cluster["spec"]["headGroupSpec"])["volumes"]
    (volume,) = [each["projected"] for each in volumes if each["name"] == mount["name"]]
    assert {path for source in volume["sources"] for path in re.findall(r"'path': '([a-z.]+)'", str(source))} == {
        "token",
        "ca.crt",
        "namespace",
    }


def test_only_the_namespace_and_the_operator_reach_anything():
    inside, operator = [each["spec"] for each in documents("namespace.yaml") if each["kind"] == "NetworkPolicy"]
    assert inside["ingress"] == [{"from": [{"podSelector": {}}]}]
    assert operator["podSelector"] == {"matchLabels": {"ray.io/node-type": "head"}}
    (rule,) = operator["ingress"]
    assert rule["ports"] == [{"port": 8265}]
    (allowed,) = rule["from"]
    (label,) = allowed["podSelector"]["matchExpressions"]
    assert label == {
        "key": "app.kubernetes.io/name",
        "operator": "In",
        "values": ["kuberay-operator", "kuberay"],
    }


def test_the_lines_for_rdma_can_be_turned_on_as_the_file_says():
    for plain, spec in zip(clusters(), clusters(rdma=True), strict=True):
        assert spec["headGroupSpec"] == plain["headGroupSpec"]
        (group,) = spec["workerGroupSpecs"]
        assert "k8s.v1.cni.cncf.io/networks" in group["template"]["metadata"]["annotations"]
        (worker,) = pod(group)["containers"]
        assert worker["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
        assert {name for name in worker["resources"]["limits"] if "/" in name} == {
            "nvidia.com/gpu",
            "rdma/hca_shared_devices_a",
        }


def test_shared_memory_of_gpu_workers_has_room_beside_rays_object_store():
    gib = 2**30
    for spec in clusters():
        (group,) = spec["workerGroupSpecs"]
        (worker,) = pod(group)["containers"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in worker["volumeMounts"]
        (volume,) = [volume["emptyDir"] for volume in pod(group)["volumes"] if volume["name"] == "shm"]
        assert volume["medium"] == "Memory"
        shared = int(volume["sizeLimit"].removesuffix("Gi")) * gib
        assert shared - int(group["rayStartParams"]["object-store-memory"]) >= 16 * gib
        memory = int(worker["resources"]["limits"]["memory"].removesuffix("Gi")) * gib
        assert shared <= memory / 10, "what is in it counts as the pod's memory"


def test_models_of_the_hub_are_kept_on_shared_storage_and_opened_by_an_optional_secret():
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (container,) = pod(group)["containers"]
            environment = {variable["name"]: variable for variable in container["env"]}
            assert environment["HF_HOME"]["value"].startswith("/shared/")
            secret = environment["HF_TOKEN"]["valueFrom"]["secretKeyRef"]
            assert secret == {"name": "sftkey-huggingface", "key": "token", "optional": True}
    assert (
        "create secret generic sftkey-huggingface --from-file=token="
        in (ROOT / "launch/kuberay/namespace.yaml").read_text()
    )


def test_ray_clusters_ask_for_a_token_and_the_one_that_stays_scales_between_bounds():
    """Field names are KubeRay's v1 API."""
    for spec in clusters():
        assert spec["authOptions"] == {"mode": "token", "secretName": "ray-auth"}
    staying, of_one_job = clusters()
    assert staying["enableInTreeAutoscaling"]
    for group in staying["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert set(of_one_job) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(staying) == set(of_one_job) | {"enableInTreeAutoscaling", "autoscalerOptions"}


def test_no_file_holds_a_secret_and_every_start_of_ray_is_authenticated():
    files = [file for folder in ("launch", "docker") for file in (ROOT / folder).rglob("*") if file.is_file()]
    for file in files:
        text = file.read_text()
        text = re.sub(r"@sha256:[0-9a-f]{64}", "", text)  # an image
        assert not re.search(r"[0-9a-f]{32}|AKIA[0-9A-Z]{16}|-----BEGIN", text), file
        if "ray start" in text or "kind: Ray" in text or '"ray", "start"' in text:
            assert "RAY_AUTH_MODE" in text or "mode: token" in text, file


def test_the_jobs_command_is_one_that_the_command_line_takes():
    (job,) = documents("rayjob.yaml")
    shell_command, program, verb, _, _, *overrides = job["spec"]["entrypoint"].split()
    # Ray runs a shell: without exec the command would be its grandchild, which nobody reaps in a container.
    assert (shell_command, program, verb) == ("exec", "sftkey", "run")
    config = load_config(QWEN2_5_7B, overrides)
    workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    gpus = workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert config.cluster.num_workers == workers["replicas"] * gpus
    assert config.cluster.wait_for_nodes_seconds > 0
    assert config.run_dir.is_absolute()
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"]) == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}}


def test_compose_publishes_on_loopback_only_and_drops_capabilities():
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2
    for name in ("head", "worker", "mlflow"):
        assert compose["services"][name]["cap_drop"] == ["ALL"]


def test_the_image_has_libraries_for_rdma_and_no_compiler():
    text = (ROOT / "docker/Dockerfile").read_text()
    assert "R580" in text
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    (installed,) = re.findall(r"apt-get install((?:[^&]|\n)*)&&", code)
    packages = {word for word in installed.split() if word != "\\" and not word.startswith("--")}
    assert {"libibverbs1", "ibverbs-providers", "librdmacm1"} <= packages
    assert not packages & {"g++", "gcc", "clang", "build-essential", "ninja-build"}
    assert re.search(r"^ARG PYTHON_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert "--require-hashes --no-deps --requirement runtime.txt" in text


@contextmanager
def slurm_job(folder, *, name_resolves_to="10.1.2.3", interfaces="172.17.0.1 10.1.2.3", **environment):
    """The script with stand-ins for what it calls; each writes down how it was called."""
    log = folder / "calls"
    note = f'echo "$(basename "$0") $*" >> {log}\n'
    variables = f'echo "variables $RAY_AUTH_MODE $HF_HOME $HF_TOKEN" >> {log}\n'
    path = stand_ins(
        folder / "bin",
        {
            "scontrol": note + 'if [ "$1" = show ]; then printf "node1\\nnode2\\nnode3\\n"; fi',
            # srun forwards SIGTERM as SIGKILL
            "srun": note + 'while [ "${1#--}" != "$1" ]; do shift; done; "$@" & trap "kill -KILL $!" TERM; wait $!',
            "getent": f'echo "{name_resolves_to} STREAM node1"; echo "{name_resolves_to} DGRAM"',
            "hostname": f'test "$1" = --all-ip-addresses && echo "{interfaces} "',
            "ray": note + f'{variables}stat -c %a "$RAY_AUTH_TOKEN_PATH" >> {log}; exec sleep 100',
            "sftkey": note + f'{variables}trap "echo interrupted >> {log}; exit 143" TERM; for i in $(seq 100); do '
            f"sleep 0.1; test -e {folder}/succeed && exit; test -e {folder}/end && exit 7; done",
            "rm": f'case "$*" in -rf*) ;; *) exec {shutil.which("rm")} "$@";; esac',
        },
    )
    environment = {
        "PATH": path,
        "HOME": str(folder),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
        **environment,
    }
    process = subprocess.Popen(
        [SLURM, "my.yaml", "seed=1"], env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process, log
    finally:
        (folder / "end").touch()  # killed at once, the script would leave its nodes behind
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()


def calls_once_started(process, log):
    deadline = time.monotonic() + 20
    while not log.exists() or log.read_text().count("variables ") < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return log.read_text()


@pytest.fixture
def slurm(tmp_path):
    """A job that runs."""
    hub = {"HF_HOME": "/shared/huggingface", "HF_TOKEN": "hf_secret"}
    with slurm_job(tmp_path, **hub) as (process, log):
        calls_once_started(process, log)
        yield process, log, tmp_path


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
    seen = re.findall(r"^variables (.*)$", calls, re.MULTILINE)
    assert seen == ["token /shared/huggingface hf_secret"] * 4, "each node and the run have the user's environment"
    assert "hf_secret" not in re.sub(r"^variables .*$", "", calls, flags=re.MULTILINE)
    assert set(re.findall(r"^(\d{3})$", calls, re.MULTILINE)) == {"600"}
    (run,) = re.findall(r"^sftkey (.*)$", calls, re.MULTILINE)
    assert run.startswith("run my.yaml seed=1 cluster.address=10.1.2.3:6379")
    assert "cluster.num_workers=12 cluster.gpus_per_worker=1 cluster.cpus_per_worker=4" in run
    (folder / "end").touch()
    process.communicate(timeout=20)
    assert process.returncode == 7
    assert not list(folder.glob(".sftkey-ray-token.*"))


@pytest.mark.parametrize(
    ("signal_number", "is_requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)], ids=["time limit", "scancel"]
)
def test_asked_to_stop_the_slurm_script_interrupts_the_run_and_queues_again_unless_it_is_cancelled(
    slurm, signal_number, is_requeued
):
    process, log, folder = slurm
    process.send_signal(signal_number)
    process.communicate(timeout=20)
    calls = log.read_text()
    assert "\ninterrupted\n" in calls
    assert re.findall("^scontrol requeue 42|^interrupted", calls, re.MULTILINE) == [
        "interrupted",
        *(["scontrol requeue 42"] if is_requeued else []),
    ]
    assert "rm -rf" not in calls, "Ray's logs may be needed"
    assert not list(folder.glob(".sftkey-ray-token.*"))


def test_the_slurm_script_keeps_rays_files_in_a_folder_of_the_job_and_removes_it_after_a_success(slurm):
    process, log, folder = slurm
    (head,) = re.findall(r"^ray start .*--head.*$", log.read_text(), re.MULTILINE)
    assert "--temp-dir=/tmp/sftkey-ray-42 " in head
    (folder / "succeed").touch()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert "srun --nodes=3 --ntasks-per-node=1 --overlap rm -rf /tmp/sftkey-ray-42" in log.read_text()


def test_each_step_of_the_slurm_script_asks_for_the_jobs_gpus_and_cpus(slurm):
    _, log, _ = slurm
    steps = re.findall(r"^srun (.*)$", log.read_text(), re.MULTILINE)
    assert len(steps) == 5, "two look for the address, three are nodes"
    for step in steps:
        assert {"--overlap", "--gres=gpu:4", "--cpus-per-task=16"} <= set(step.split())


def test_the_slurm_script_asks_for_no_gpus_where_the_job_has_none(tmp_path):
    with slurm_job(tmp_path, SLURM_GPUS_ON_NODE="") as (process, log):
        calls = calls_once_started(process, log)
    assert "--gres" not in calls
    assert calls.count("--num-gpus=0") == 2 * 3, "of the step, and of what runs in it"
    assert "cluster.num_workers=3 cluster.gpus_per_worker=0 cluster.cpus_per_worker=16" in calls


def test_the_slurm_job_asks_for_gpus_and_for_time_to_save():
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", SLURM.read_text(), re.MULTILINE))
    assert directives["gres"] == "gpu:8"
    assert not {name for name in directives if name.startswith("gpus")}
    assert directives["mem"] == "0"
    seconds = re.fullmatch(r"B:USR1@(\d+)", directives["signal"])[1]
    assert int(seconds) >= 600


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ({}, "10.1.2.3"),
        ({"name_resolves_to": "127.0.1.1", "interfaces": "127.0.0.1 10.9.8.7 172.17.0.1 fd00::2"}, "10.9.8.7"),
        ({"name_resolves_to": "", "interfaces": "fd00::2 10.9.8.7"}, "10.9.8.7"),
        ({"name_resolves_to": "127.0.1.1", "SFTKEY_HEAD_ADDRESS": "10.5.5.5"}, "10.5.5.5"),
    ],
    ids=["another host resolves it", "the name is loopback", "no name, IPv6 first", "as the user says"],
)
def test_the_slurm_script_finds_an_address_of_the_head_that_others_reach(tmp_path, network, address):
    with slurm_job(tmp_path, **network) as (process, log):
        calls = calls_once_started(process, log)
    assert set(re.findall(r"^ray start .*address=(\S+)", calls, re.MULTILINE)) >= {f"{address}:6379"}
    assert f"--head --node-ip-address={address} " in calls
    assert f"cluster.address={address}:6379" in calls
    assert ("--nodelist=node3 getent ahostsv4 node1" in calls) == ("SFTKEY_HEAD_ADDRESS" not in network)


def test_the_slurm_script_stops_where_it_finds_loopback_only(tmp_path):
    with slurm_job(tmp_path, name_resolves_to="127.0.1.1", interfaces="127.0.0.1") as (process, log):
        _, error = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "node1 has no address but loopback; set SFTKEY_HEAD_ADDRESS" in error
    assert "ray start" not in log.read_text()
    assert not list(tmp_path.glob(".sftkey-ray-token.*"))


def serve(folder, *arguments, **environment):
    """The script for vLLM, with stand-ins for what it installs; returns how it ended and what was called."""
    log = folder / "calls"
    note = f'echo "$(basename "$0") $*" >> {log}\n'
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    if not (folder / "bin").exists():
        stand_ins(folder / "installed", {"pip": note, "vllm": f'{note}echo "key $VLLM_API_KEY" >> {log}'})
        stand_ins(folder / "bin", {"python3": f'{note}mkdir -p "$3/bin" && cp {folder}/installed/* "$3/bin"'})
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [VLLM, *arguments],
        env={"PATH": path, "HOME": str(folder), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done, log.read_text() if log.exists() else ""


@pytest.fixture
def served_model(tmp_path):
    model = tmp_path / "run" / "stages" / "sftkey-tag.2-0123abcd" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    return model


def test_vllm_serves_on_loopback_with_a_key_that_is_in_no_command_line(tmp_path, served_model):
    done, calls = serve(tmp_path, "run/stages/sftkey-tag.2-0123abcd/model", "4", "--max-model-len", "4096")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^python3 -m venv \S+/vllm-0.30.0$", calls, re.MULTILINE)
    assert "pip install vllm==0.30.0\n" in calls
    (command,) = re.findall(r"^vllm (.*)$", calls, re.MULTILINE)
    assert command == (
        f"serve {served_model} --served-model-name sftkey-tag.2-0123abcd --tensor-parallel-size 4 --host 127.0.0.1 "
        "--port 8000 --generation-config vllm --max-model-len auto --max-model-len 4096"
    )
    key_file = tmp_path / ".sftkey-vllm-key"
    key = key_file.read_text()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    assert calls.count(key) == 1, "the server has it, from its environment"
    assert f"key {key}\n" in calls
    assert str(key_file) in done.stdout
    assert key not in done.stdout + done.stderr


def test_vllm_prints_an_evaluation_that_the_command_line_takes(tmp_path, served_model):
    done, _ = serve(tmp_path, served_model, SFTKEY_VLLM_PORT="8123")
    line = done.stdout.partition("on this machine:\n")[2].replace("STRATEGY", "sftkey-tag")
    path = stand_ins(tmp_path / "evaluation", {"sftkey": 'printf "%s\\n" "$VLLM_API_KEY" "$@"'})
    ran = subprocess.run(["bash", "-c", line], env={"PATH": path}, capture_output=True, text=True, check=True)
    key, verb, _, *overrides = ran.stdout.splitlines()
    assert (key, verb) == ((tmp_path / ".sftkey-vllm-key").read_text(), "evaluate")
    config = load_config(QWEN2_5_7B, overrides)
    assert config.strategies == ("sftkey-tag",)
    assert config.evaluation.backend == "endpoint"
    endpoint = config.evaluation.endpoint
    assert endpoint.url == "http://127.0.0.1:8123/v1"
    assert (endpoint.model, endpoint.api_key_env) == ("sftkey-tag.2-0123abcd", "VLLM_API_KEY")


def test_vllm_is_installed_once_for_each_version_and_takes_the_users_key_and_name(tmp_path, served_model):
    own = {"VLLM_API_KEY": "mine", "SFTKEY_SERVED_NAME": "tuned"}
    assert "pip install" in serve(tmp_path, served_model, **own)[1]
    done, calls = serve(tmp_path, served_model, **own)
    assert "pip install" not in calls
    assert "--served-model-name tuned --tensor-parallel-size 1 " in calls
    assert "key mine\n" in calls
    assert "mine" not in done.stdout
    assert not (tmp_path / ".sftkey-vllm-key").exists()
    assert "pip install vllm==0.31.0\n" in serve(tmp_path, served_model, SFTKEY_VLLM_VERSION="0.31.0", **own)[1]


def test_vllm_names_a_folder_that_is_missing_and_says_how_it_is_used(tmp_path, served_model):
    done, calls = serve(tmp_path, "nowhere")
    assert (done.returncode, calls) == (2, "")
    assert "nowhere: not a folder with a model" in done.stderr
    for arguments in ((), (served_model, "four"), (served_model, "0")):
        done, calls = serve(tmp_path, *arguments)
        assert (done.returncode, calls) == (2, "")
        assert done.stderr.startswith("usage: vllm.sh MODEL_DIR [GPUS")
    done, calls = serve(tmp_path, "--help")
    assert (done.returncode, calls) == (0, "")
    assert done.stdout.startswith("usage: vllm.sh MODEL_DIR [GPUS")
