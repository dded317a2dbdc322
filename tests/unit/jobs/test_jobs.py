"""What travels with a job, and whom one speaks to without a token."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package

from sftkey_dist.cli import app
from sftkey_dist.config import load_config, load_study, load_trial, load_tuning
from sftkey_dist.config.evaluation import CapabilitiesConfig
from sftkey_dist.config.tracking import TrackingConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.jobs.client import RayJobs
from sftkey_dist.jobs.description import JobDescription
from sftkey_dist.jobs.upload import packed

SECRETS = [
    *(".env", ".env.local", ".env.production", ".envrc", "id_rsa", "id_ecdsa", "id_dsa", ".pypirc", ".npmrc", ".netrc"),
    *(".kube/config", ".ssh/work_key", ".docker/config.json", ".aws/credentials", ".htpasswd", "data/api_token"),
    *("service-account.json", "api_key.txt", "password.txt", "server.pfx", "store.jks", "db.kdbx", "key.pem"),
    *("terraform.tfstate", "kubeconfig", "accessKeys.csv", "secrets.py"),
]

STUDY = """
run_dir: $SCRATCH/study
study:
  title: Rates
  seeds: [1]
  variants:
    plain: {}
    fast: {config: {optimization: {learning_rate: 0.77}, data: {train: {path: other.jsonl}}}}
model: {embedded: {}}
data:
  store_dir: $SCRATCH/store
  train: {adapter: records, path: rows.jsonl}
  test: {adapter: decision_memos, limit: 4}
"""
TUNING = """
run_dir: $SCRATCH/tuning
tune: {strategy: sft-tag, keys: {optimization.learning_rate: {loguniform: [1.0e-5, 1.0e-3]}}, num_trials: 2}
model: {embedded: {}}
data:
  store_dir: $SCRATCH/store
  train: {adapter: decision_memos, limit: 8}
  test: {adapter: decision_memos, split: test, limit: 4}
validation: {num_examples: 4}
"""


@pytest.fixture
def config(run_config):
    return run_config


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def track(folder: Path, *names: str) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "--", *names], check=True)


def sent(config, folder, include=()):
    with packed(JobDescription.of_run(config), folder, include) as upload:
        files = [file for file in upload.folder.rglob("*") if not file.is_dir()]
        return {str(file.relative_to(upload.folder)) for file in files} - {"sftkey-job.yaml"}, set(upload.left_out)


def with_train(config, **keys):
    train = {"adapter": "records", **keys}
    content = config.model_dump(mode="json")
    return type(config).model_validate(content | {"data": content["data"] | {"train": train}})


def test_the_merged_configuration_travels_and_reads_back_the_same(config):
    with packed(JobDescription.of_run(config), None) as upload:
        assert load_config([upload.folder / "sftkey-job.yaml"]) == config
        assert yaml.safe_load((upload.folder / "sftkey-job.yaml").read_text())["run_dir"] == str(config.run_dir)
    assert not upload.folder.exists()


def test_a_study_travels_with_the_values_that_hold_for_each_run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    file = folder / "study.yaml"
    file.write_text(STUDY)
    put(folder, "rows.jsonl", "other.jsonl", "third.jsonl")
    gpus = ["cluster.gpus_per_worker=1", "study.runs_at_a_time=2", "cluster.address=auto"]
    study = load_study([file], ["optimization.learning_rate=1e-3", "study.seeds=[1, 2]", *gpus])
    job = JobDescription.of_study(study)
    assert job.arguments(allow_unauthenticated=False) == ["run", "sftkey-job.yaml", "cluster.address=auto"]
    with packed(job, folder) as upload:
        assert {file.name for file in upload.folder.iterdir()} == {"rows.jsonl", "other.jsonl", "sftkey-job.yaml"}
        monkeypatch.delenv("SCRATCH")
        there = load_study([upload.folder / "sftkey-job.yaml"], job.arguments(allow_unauthenticated=False)[2:])
        assert "0.77" not in (upload.folder / "sftkey-job.yaml").read_text(), "a value that never holds is not sent"
    assert (there.folder, there.settings.seeds, there.runs) == (tmp_path / "study", (1, 2), study.runs)
    assert {run.config.optimization.learning_rate for run in there.runs} == {1e-3}


def test_a_tuning_travels_with_the_folder_of_all_its_trials(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    file = folder / "tune.yaml"
    file.write_text(TUNING)
    tuning = load_tuning([file])
    job = JobDescription.of_tuning(tuning)
    with packed(job, folder) as upload:
        arguments = job.arguments(allow_unauthenticated=True)
        assert arguments == ["tune", "sftkey-job.yaml", "cluster.address=auto", "cluster.allow_unauthenticated=true"]
        there = load_tuning([upload.folder / "sftkey-job.yaml"])
    assert (there.folder, there.settings) == (tmp_path / "tuning", tuning.settings)
    values = {"optimization.learning_rate": 2e-4}
    assert load_trial(there, "trial-001", values) == load_trial(tuning, "trial-001", values)
    relative = JobDescription.of_tuning(load_tuning([file], ["run_dir=runs/mine"]))
    with pytest.raises(ConfigError, match="run_dir=runs/mine: a job needs an absolute path"), packed(relative, None):
        pass


def test_what_a_job_does_follows_from_its_file(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    study, tuning, both = folder / "study.yaml", folder / "tune.yaml", folder / "both.yaml"
    study.write_text(STUDY)
    tuning.write_text(TUNING)
    both.write_text(STUDY + TUNING.partition("\n")[2].partition("model")[0].replace("run_dir: $SCRATCH/tuning\n", ""))
    for arguments, message in {
        (study, "--verb", "train"): "the section study describes many runs",
        (study, "--verb", "tune"): "no section tune",
        (tuning, "--verb", "run"): "the section tune describes many trials",
        (both,): "gives both study and tune; keep one of them in another file",
        ("a=b",): "give at least one configuration file",
        ("--verb", "tune", "a=b"): "no configuration file is given: no section tune",
        (study, "--verb", "plan"): "a job can run, prepare, train, evaluate or tune",
        (study,): "--address http://127.0.0.1:1",
        (tuning,): "--address http://127.0.0.1:1",
    }.items():
        with pytest.raises(ConfigError, match=message):
            app(["submit", *map(str, arguments), "--address", "http://127.0.0.1:1"], standalone_mode=False)


def test_of_a_work_tree_travels_what_git_tracks(config, folder):
    put(folder, "train.py", "src/runs/mod.py", "data/rows.jsonl", "notes.txt", "gone.py", *SECRETS)
    (folder / ".gitignore").write_text(".env\n")
    track(folder, "train.py", "src", "data/rows.jsonl", "gone.py", ".gitignore")
    (folder / "gone.py").unlink()
    names, left_out = sent(config, folder)
    assert names == {"train.py", "src/runs/mod.py", "data/rows.jsonl"}
    assert {".env", ".env.local", "notes.txt", "service-account.json", ".kube/", "data/api_token"} <= left_out
    assert not names & left_out
    assert sent(config, folder, ["notes.txt"])[0] == names | {"notes.txt"}
    assert sent(config, folder / "src")[0] == {"runs/mod.py"}, "of a folder of a work tree, its part"


def test_rays_client_packs_all_that_is_sent_whatever_files_say_what_to_ignore(config, folder, tmp_path):
    put(folder, "train.py", "data/rows.jsonl", "models/tiny.bin")
    (folder / ".gitignore").write_text("/data\n")
    (folder / "models" / ".rayignore").write_text("*.bin\n")
    track(folder, "train.py", ".gitignore", "models")
    with packed(JobDescription.of_run(config), folder, ["data/*"]) as upload:
        create_package(str(upload.folder), tmp_path / "job.zip", include_gitignore=True)
    assert set(ZipFile(tmp_path / "job.zip").namelist()) == {
        "train.py",
        "data/rows.jsonl",
        "models/tiny.bin",
        "sftkey-job.yaml",
    }


def test_of_another_folder_travel_python_files_and_what_the_configuration_names(config, folder):
    put(folder, "train.py", "src/runs/mod.py", "data/rows.jsonl", "data/other.jsonl", "__pycache__/a.pyc", *SECRETS)
    names, left_out = sent(with_train(config, path="./data/rows*.jsonl"), folder)
    assert names == {"train.py", "src/runs/mod.py", "data/rows.jsonl"}
    assert {".env", "id_ecdsa", ".kube/", "data/other.jsonl", "terraform.tfstate"} <= left_out
    assert sent(with_train(config, path="data"), folder)[0] >= {"data/rows.jsonl", "data/other.jsonl"}
    capabilities = CapabilitiesConfig(tasks=("mine",), task_dir="data")
    evaluation = config.evaluation.model_copy(update={"capabilities": capabilities})
    assert "data/rows.jsonl" in sent(config.model_copy(update={"evaluation": evaluation}), folder)[0]


def test_data_that_would_be_missing_on_the_cluster_are_found_before_the_job_starts(config, folder, monkeypatch):
    put(folder, "train.py", "data/rows [1].jsonl", "data/more/rows.jsonl", "models/mine/config.json")
    track(folder, "train.py", "data/more/rows.jsonl")
    monkeypatch.chdir(folder)
    named = with_train(config, path="data/rows [1].jsonl")
    with pytest.raises(ConfigError, match=r"is not sent with the job; add --working-dir \. and.* an absolute path"):
        sent(named, None)
    for path in ("data/rows [1].jsonl", "./data/*.jsonl", "data/**/*.jsonl", "data"):
        missing = with_train(config, path=path)
        with pytest.raises(ConfigError, match=r"names data/rows \[1\]\.jsonl, which is not sent") as refused:
            sent(missing, folder)
        (include,) = re.findall(r"--include (\S+|'[^']+'),", str(refused.value))
        assert "data/rows [1].jsonl" in sent(missing, folder, shlex.split(include))[0], "the remedy works"
    model = config.model.model_copy(update={"path": "models/mine", "embedded": None})
    with pytest.raises(ConfigError, match=r"models/mine: .*--include models/mine/config\.json"):
        sent(config.model_copy(update={"model": model}), folder)
    on_a_hub = config.model.model_copy(update={"path": "Qwen/Qwen2.5-7B", "embedded": None})
    assert "train.py" in sent(config.model_copy(update={"model": on_a_hub}), folder)[0]
    assert sent(with_train(config, path=str(folder / "data")), None)[0] == set(), "an absolute path needs no copy"


def test_a_pattern_at_any_depth_names_the_files_that_are_read(config, folder):
    put(folder, "data/a.jsonl", "data/x/b.jsonl", "data/x/y/c.jsonl", "other.jsonl")
    assert sent(with_train(config, path="data/**/*.jsonl"), folder)[0] == {
        *("data/a.jsonl", "data/x/b.jsonl", "data/x/y/c.jsonl")
    }


def test_an_allow_list_is_taken_by_its_word(config, folder):
    put(folder, "train.py", "data/a.jsonl", "data/b/c.jsonl", *SECRETS)
    assert sent(config, folder, ["*.jsonl"])[0] == {"data/a.jsonl", "data/b/c.jsonl"}
    names, _ = sent(config, folder, ["*"])
    assert "train.py" in names
    assert not {name for name in names if "/." in f"/{name}"}, "as in a shell, * is not for hidden files"
    assert sent(config, folder, [".kube/config"])[0] == {".kube/config"}
    with pytest.raises(ConfigError, match=r"--include '\*.csvx': matches no file"):
        sent(config, folder, ["*.csvx"])
    for outside in ("../*", "/etc/*"):
        with pytest.raises(ConfigError, match="matches no file"):
            sent(config, folder, [outside])


def test_what_was_left_out_is_one_line(config, folder):
    put(folder, "train.py", *(f"notes_{number:02d}.txt" for number in range(40)))
    with packed(JobDescription.of_run(config), folder) as upload:
        line = upload.left_out_in_words()
    assert "notes_00.txt" in line
    assert "and 30 more" in line
    assert "\n" not in line


LINKS = {
    "link.py -> ../outside/id_rsa": "outside the folder; copy the file",
    "link.py -> /nonexistent": "link.py: is a broken link",
    "link.py -> link.py": "link.py: is a broken link",
    "link.py -> one.py; one.py -> link.py": "is a broken link",
    "link.py -> .env": "link.py: is a link to",
}


@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.parametrize("links", LINKS)
def test_links_lead_to_nothing_that_is_not_sent_itself(config, folder, tmp_path, links, in_git):
    put(folder, "train.py", ".env")
    put(tmp_path, "outside/id_rsa")
    for link in links.split("; "):
        name, _, target = link.partition(" -> ")
        (folder / name).symlink_to(target)
    if in_git:
        track(folder, "train.py", "link.py")
    with pytest.raises(ConfigError) as error:
        sent(config, folder)
    assert LINKS[links] in str(error.value)
    assert "\n" not in str(error.value)


def test_links_to_files_that_are_sent_are_copies_and_linked_folders_are_named(config, folder, tmp_path):
    put(folder, "train.py", "data/rows.jsonl")
    put(tmp_path, "outside/id_rsa")
    (folder / "same.py").symlink_to("train.py")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "self").symlink_to(folder)
    (folder / "dangling").symlink_to("/nonexistent")
    os.mkfifo(folder / "fifo")
    names, left_out = sent(config, folder)
    assert names == {"train.py", "same.py"}
    assert left_out == {"linked/", "self/", "dangling", "fifo", "data/rows.jsonl"}
    track(folder, "train.py", "same.py", "linked", "self", "data")
    assert sent(config, folder)[0] == {"train.py", "same.py", "data/rows.jsonl"}
    for name, message in {"fifo": "is not a regular file", "dangling": "is a broken link"}.items():
        with pytest.raises(ConfigError, match=f"{name}: {message}"):
            sent(config, folder, [name])


def test_a_folder_that_is_none_is_named(config, tmp_path):
    put(tmp_path, "file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    for name, message in {
        "nope": "no such",
        "loop": "no such",
        "dangling": "no such",
        "file": "not a",
        "fifo": "not a",
    }.items():
        with pytest.raises(ConfigError, match=rf"--working-dir .*/{name}: (there )?is {message} folder"):
            sent(config, tmp_path / name)


def test_sizes_are_looked_at_before_anything_is_copied(config, folder, monkeypatch):
    put(folder, "train.py")
    with (folder / "large.py").open("wb") as file:
        file.truncate(400 * 2**20)
    copied = []
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: copied.append(paths))
    with pytest.raises(ConfigError, match=r"400 MiB is more than the 100 MiB .* the largest file is large\.py"):
        sent(config, folder)
    assert not copied


def test_what_no_other_node_could_read_is_refused(config, tmp_path, monkeypatch):
    here = config.model_copy(update={"run_dir": type(tmp_path)("runs/here")})
    with (
        pytest.raises(ConfigError, match=r"run_dir=runs/here: a job needs an absolute path.*/mnt/shared/runs/here"),
        packed(JobDescription.of_run(here), None),
    ):
        pass
    for key, tracking in (
        ("tracking.uri=runs/mlflow.db", {"uri": "sqlite:///runs/mlflow.db"}),
        ("tracking.tensorboard.folder=tb", {"also": ("tensorboard",), "tensorboard": {"folder": "tb"}}),
    ):
        lost = config.model_copy(update={"tracking": TrackingConfig.model_validate(tracking)})
        with pytest.raises(ConfigError, match=f"{key}: a job needs"), packed(JobDescription.of_run(lost), None):
            pass
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", "http://mlflow:5000", "databricks"):
        kept = config.model_copy(update={"tracking": TrackingConfig(uri=uri)})
        with packed(JobDescription.of_run(kept), None):
            pass
    monkeypatch.setattr("sftkey_dist.jobs.upload._MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="more than the"), packed(JobDescription.of_run(config), None):
        pass


def test_an_address_without_a_scheme_is_named_before_anything_waits():
    with pytest.raises(ConfigError, match=r"give the dashboard's address, such as http://127\.0\.0\.1:1"):
        RayJobs("127.0.0.1:1")


def test_a_remote_cluster_is_not_spoken_to_without_a_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE=token"):
        RayJobs("http://10.255.255.1:8265")
    with pytest.raises(ConfigError, match="is it the dashboard's address"):
        RayJobs("http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="must not contain credentials") as error:
        RayJobs("http://me:hunter2@127.0.0.1:8265")
    assert "hunter2" not in str(error.value)
