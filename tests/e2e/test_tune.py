"""A real tuning: trials side by side on one cluster, of which the scheduler stops a hopeless one."""

import shutil

import pytest
import yaml
from mlflow import MlflowClient

from sftkey_dist.config import load_config
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.training import EVENTS, METRICS
from sftkey_dist.run_dir.artifacts.tuning import TUNING

pytestmark = pytest.mark.slow
KEY = "key_stage.optimization"
RATES_AND_EPOCHS = [(1.0e-3, 1), (1.0e-4, 1), (50.0, 60)]


def test_a_tuning_shares_stage_1_stops_a_hopeless_trial_and_trains_nothing_twice(
    sftkey, tiny_config, empty_database, tmp_path
):
    config = yaml.safe_load(tiny_config.read_text())
    config |= {
        "run_dir": "runs/tuning",
        "cluster": {"num_workers": 1},
        "validation": {
            "num_examples": 8,
            "every_steps": 2,
            "guard": {"num_examples": 8, "every_steps": 2, "signal": "teacher_forced"},
        },
        "tune": {
            "keys": {KEY: {"grid": [{"learning_rate": rate, "num_epochs": n} for rate, n in RATES_AND_EPOCHS]}},
            "metric": "validation/segments/answer/nll",
            "max_concurrent": 2,
            "reduction_factor": 2,
        },
    }
    config["training"] |= {"precision": "bfloat16"}  # so that stage 1 hands on master weights
    config["tracking"] |= {"system_metrics": False}
    (tmp_path / "runs").mkdir()
    shutil.copyfile(empty_database, tmp_path / "runs/mlflow.db")
    file = tmp_path / "tune.yaml"
    file.write_text(yaml.safe_dump(config))
    done = sftkey("tune", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("stage 1/2 (full): starting") == 1

    folder = tmp_path / "runs/tuning"
    trials = TUNING.read(folder / "tune.json").trials
    assert [trial.status for trial in trials[::2]] == ["finished", "stopped"]
    assert [score.step for score in trials[2].scores] == [0, 2], "the first decision is that of step 2"
    (full, key) = sorted(RunDir(folder / "trial-003").stages(), key=lambda stage: len(stage.path.name))
    assert full.summary.is_file()
    assert not key.summary.is_file()
    assert not key.checkpoints.exists()
    assert len(METRICS.read(key.metrics)) < 7 * 60
    assert "stopped by the scheduler after step 2, with validation/segments/answer/nll" in str(EVENTS.read(key.events))
    logs = [(folder / trial.run_dir / "run.log").read_text() for trial in trials]
    assert all("stage 1/2 (full): finished earlier, not trained again" in log for log in logs)

    best = load_config([folder / "best.yaml"])
    assert (str(best.run_dir), best.key_stage.optimization.learning_rate) == ("runs/tuning/trial-001", 1.0e-3)
    assert "fresh seeds" in (folder / "best.yaml").read_text()
    assert (folder / "TUNING.md").is_file()
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "tuning"]
    runs = client.search_runs([experiment.experiment_id], "tags.`sftkey.stage` = 'key'")
    assert {run.data.params["optimization.learning_rate"]: run.info.status for run in runs} | {"0.0001": ""} == {
        "0.001": "FINISHED",
        "0.0001": "",
        "50.0": "KILLED",
    }

    again = sftkey("tune", file)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "starting" not in again.stdout
    assert "trials:" not in again.stdout, "nothing was left to do"
    run = sftkey("train", folder / "best.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "starting" not in run.stdout
