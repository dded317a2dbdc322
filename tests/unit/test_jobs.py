"""What travels with a job, and whom one speaks to without a token."""

import pytest
import yaml

from sftkey_dist.config import load_config
from sftkey_dist.errors import ConfigError
from sftkey_dist.jobs import RayJobs, is_loopback, packed


@pytest.fixture
def config(run_config):
    return run_config


def test_the_merged_configuration_and_a_folder_travel_and_secrets_stay(config, tmp_path):
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    for name in ("data/train.jsonl", ".env", "data/api_token", "id_rsa", "runs.txt", "tokenizer.json"):
        (folder / name).write_text("x")
    with packed(config, folder) as upload:
        names = {str(file.relative_to(upload.folder)) for file in upload.folder.rglob("*") if file.is_file()}
        assert names == {"sftkey-job.yaml", "data/train.jsonl", "runs.txt", "tokenizer.json"}
        assert {name.rpartition("/")[2] for name in upload.secrets_left_out} == {".env", "api_token", "id_rsa"}
        assert load_config([upload.folder / "sftkey-job.yaml"]) == config
        assert yaml.safe_load((upload.folder / "sftkey-job.yaml").read_text())["run_dir"] == str(config.run_dir)
    assert not upload.folder.exists()


def test_what_no_other_node_could_read_is_refused(config, tmp_path, monkeypatch):
    with (
        pytest.raises(ConfigError, match=r"run_dir=runs/here: a job needs an absolute path.*/mnt/shared/runs/here"),
        packed(config.model_copy(update={"run_dir": type(tmp_path)("runs/here")}), None),
    ):
        pass
    monkeypatch.setattr("sftkey_dist.jobs._MOST_BYTES", 10)
    with pytest.raises(ConfigError, match="more than the"), packed(config, None):
        pass


def test_a_remote_cluster_is_not_spoken_to_without_a_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert is_loopback("http://127.0.0.1:8265")
    assert is_loopback("localhost:8265")
    assert not is_loopback("http://10.0.0.1:8265")
    assert not is_loopback("http://127.0.0.1.example.org:8265")
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE=token"):
        RayJobs("http://10.255.255.1:8265")
    with pytest.raises(ConfigError, match="is it the dashboard's address"):
        RayJobs("http://127.0.0.1:1")
