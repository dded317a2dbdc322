"""Tracking on real servers: everything arrives, an outage loses nothing, secrets stay where they are."""

import json
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from transformers import AutoTokenizer

from sftkey_dist.errors import ConfigError
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.pipeline.tracking.sync import sync
from sftkey_dist.tracking import DataSetNote, MeasuredScores, ModelNote, run_dirs_of
from sftkey_dist.tracking.mlflow_store import MlflowTracker
from tests.e2e.conftest import environment
from tests.e2e.forked import ForkedCommand
from tests.mlflow_server import POSTGRES, mlflow_server, postgres

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
TAGS = {"sftkey.strategy": "sft", "sftkey.run": "study", "sftkey.seed": "3"}
SECRETS = {"OPENAI_API_KEY": "sk-planted-1", "MY_JUDGE_KEY": "planted-2", "MLFLOW_TRACKING_PASSWORD": "planted-3"}


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request, tmp_path, tmp_path_factory):
    if request.param == "sqlite":
        with mlflow_server(tmp_path / "server") as running:
            yield running
        return
    pytest.importorskip("psycopg")
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed")
    with postgres(tmp_path_factory.mktemp("postgres")) as store, mlflow_server(tmp_path / "server", store) as running:
        yield running


def test_all_that_is_logged_arrives_at_a_server_over_any_store(server, tmp_path, tiny_model):
    tracker = MlflowTracker(server.url, "study", tmp_path / "unused", tmp_path / "tracking.json")
    run = tracker.start_run("strategy/sft", "sft", None, TAGS)
    evaluation = tracker.start_run("evaluation/sft", "evaluation", run, TAGS)
    tracker.log_params(run, {"optimization": {"learning_rate": 1e-3}})
    tracker.log_steps(run, [{"step": step, "loss": 1 / (step + 1)} for step in range(5)])
    tracker.log_data_set(run, DataSetNote("gsm8k/train", "abc123", "training", "gsm8k/train.jsonl", 7473))
    for outputs in (["an earlier one"], ["x", "<y>"]):
        tracker.log_table(run, {"id": [f"q{n}" for n, _ in enumerate(outputs)], "output": outputs}, "outputs.json")
    tracker.log_artifact(run, tiny_model / "config.json")
    with tracker.watching_system(run):
        pass
    (tiny_model / "README.md").write_text("---\nlibrary_name: transformers\n---\n# tiny\n")
    tracker.note_model(run, ModelNote(tiny_model, {"strategy": "sft"}))
    tested = DataSetNote("gsm8k/test", "def456", "testing", "gsm8k/test.jsonl", 2)
    tracker.log_scores(evaluation, [MeasuredScores({"accuracy": 0.5, "format": 1.0}, tested)], run)
    tracker.log_model(run, tiny_model)
    tracker.end_run(run)

    logged = MlflowClient(server.url).get_run(run)
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {"optimization.learning_rate": "0.001"}
    (data_set,) = logged.inputs.dataset_inputs
    assert (data_set.dataset.name, data_set.dataset.digest) == ("gsm8k/train", "abc123")
    assert tracker.log_missing(run, [{"step": step, "loss": 0.5, "extra": 1} for step in range(7)]) == 2 + 7
    assert len(MlflowClient(server.url).get_metric_history(run, "loss")) == 7
    assert tracker.log_missing(run, [{"step": 0, "loss": 9.0}]) == 0, "what is there stays"
    (model,) = MlflowClient(server.url).search_logged_models([logged.info.experiment_id])
    assert (logged.info.run_name, model.name, model.source_run_id) == ("sft seed-3", "sft-seed-3", run)
    assert model.params == {"strategy": "sft", "folder": str(tiny_model)}
    assert {(m.key, m.value, m.dataset_name, m.dataset_digest) for m in model.metrics} == {
        ("accuracy", 0.5, "gsm8k/test", "def456"),
        ("format", 1.0, "gsm8k/test", "def456"),
    }
    mlflow.set_tracking_uri(server.url)
    try:
        table = MlflowClient(server.url).load_table(logged.info.experiment_id, "outputs.json", run_ids=[run])
        assert list(table["output"]) == ["x", "<y>"]
        pipeline = mlflow.transformers.load_model(f"models:/{model.model_id}")
        tracker.log_model(run, tiny_model)
    finally:
        mlflow.set_tracking_uri(None)
    prompt = "Approve, review or reject?"
    assert pipeline(prompt, max_new_tokens=2)[0]["generated_text"].startswith(prompt)
    assert pipeline.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tiny_model).get_vocab()


def test_a_server_that_dies_and_comes_back_has_everything_after_sync_and_no_secret(tiny_config, sftkey, tmp_path):
    run = tmp_path / "runs" / "tiny"
    with mlflow_server(tmp_path / "server") as server:
        settings = [f"tracking.uri={server.url}", "strategies=[sft]", "optimization.num_epochs=15"]
        settings += ["cluster.num_workers=1", "tracking.max_model_gib=1"]
        log = tmp_path / "log"
        driver = ForkedCommand(["run", tiny_config, *settings], tmp_path, environment() | SECRETS, log)
        try:
            wait_for_steps(run, 15, driver, log)
            server.kill()
            driver.wait(timeout=200)
            server.start()
        finally:
            driver.kill()
        output = log.read_text()
        assert driver.wait() == 0, output
        assert "MLflow stopped answering" in output
        assert "sftkey track sync RUN" in output

        lacking = differences(server, run)
        assert lacking > 0
        synced = sftkey("track", "sync", run)
        assert synced.returncode == 0, synced.stderr
        assert differences(server, run) == 0
        for page in (tmp_path / "server").rglob("comparison.html"):
            page.unlink()  # as if the server had come back only when the run was over
        assert sync(run) == 0, "and each once"

        compare(run_dirs_of("tiny", server.url), tmp_path / "all.json")
        assert (tmp_path / "all.html").is_file()

        client = MlflowClient(server.url)
        runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
        assert {r.info.status for r in runs} == {"FINISHED"}
        (parent,) = [r for r in runs if r.info.run_name == "sft seed-0"]
        assert parent.data.tags["sftkey.strategy"] == "sft"
        files = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert files >= {"config.json", "comparison.html", "outputs.json"}
        (model,) = client.search_logged_models([parent.info.experiment_id])
        assert model.source_run_id == parent.info.run_id
        assert "config.json" in {
            Path(file.path).name for file in client.list_logged_model_artifacts(model.model_id, "model")
        }
        assert {(m.key, m.dataset_name) for m in model.metrics} >= {("accuracy", "decision_memos/test")}

    everything = [f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()]
    assert not [secret for secret in SECRETS.values() if any(secret.encode() in content for content in everything)]


def test_the_server_that_launch_starts_asks_for_its_account(tmp_path, monkeypatch):
    """By the arguments and variables of launch/kuberay/mlflow.yaml, with this test's folder for the shared one."""
    deployment, _ = yaml.safe_load_all((ROOT / "launch/kuberay/mlflow.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    settings = tmp_path / "mlflow_auth.ini"
    settings.write_text((ROOT / "docker/mlflow_auth.ini").read_text().replace("/shared/mlflow", str(tmp_path)))
    assert variables.pop("MLFLOW_SERVER_ENABLE_JOB_EXECUTION") == "false", "nothing here runs code on the server"
    assert variables.pop("MLFLOW_AUTH_CONFIG_PATH") == "/opt/sftkey/mlflow_auth.ini", "where the image has it"
    account = {"MLFLOW_AUTH_ADMIN_USERNAME": "sftkey", "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-password-1"}
    account["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "signs-cookies"
    assert set(variables) == set(account)
    own = [each for each in container["args"] if each.startswith("--app-name")]
    environment = account | {"MLFLOW_AUTH_CONFIG_PATH": str(settings)}
    with mlflow_server(tmp_path / "server", arguments=own, environment=environment) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "sftkey")
        for password in ("a-wrong-password-1", None):
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or "")
            with pytest.raises(ConfigError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as told:
                MlflowTracker(server.url, "study", tmp_path / "unused", tmp_path / "tracking.json")
            assert not password or password not in str(told.value)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account["MLFLOW_AUTH_ADMIN_PASSWORD"])
        tracker = MlflowTracker(server.url, "study", tmp_path / "unused", tmp_path / "tracking.json")
        run = tracker.start_run("stage/abc", "stage full", None, {})
        tracker.log_steps(run, [{"step": 0, "loss": 0.5}])
        tracker.log_artifact(run, settings)
        tracker.end_run(run)
        client = MlflowClient(server.url)
        assert client.get_run(run).info.status == "FINISHED"
        assert [each.path for each in client.list_artifacts(run)] == ["mlflow_auth.ini"]


def wait_for_steps(run, number, driver, log):
    deadline = time.monotonic() + 150
    while steps_of(run) < number:
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def steps_of(run):
    return sum(len(file.read_bytes().splitlines()) for file in run.glob("stages/*/metrics.jsonl"))


def differences(server, run):
    """Steps whose loss the server lacks, or has twice or with another value."""
    (file,) = run.glob("stages/*/metrics.jsonl")
    expected = sorted((r["step"], r["loss"]) for r in map(json.loads, file.read_text().splitlines()))
    client = MlflowClient(server.url)
    (stage,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "tags.`sftkey.stage` = 'full'")
    found = sorted((m.step, m.value) for m in client.get_metric_history(stage.info.run_id, "loss"))
    return len(set(expected) ^ set(found)) + len(found) - len(set(found))
