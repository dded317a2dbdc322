"""What no setting may hold, and no message may show."""

import pytest
from pydantic import ValidationError

from sftkey_dist.config import load_config
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.secrets import (
    holds_credentials,
    is_loopback,
    is_named_like_a_secret,
    is_variable_name,
    without_credentials,
)
from sftkey_dist.errors import ConfigError
from tests.unit.config.test_load import MINIMAL

WITH_CREDENTIALS = [
    "http://me:hunter2@mlflow:5000",
    "https://hunter2@mlflow",
    "postgresql://me:hunter2/x@db/mlflow",
    "postgresql://me:hun#ter2?x@db/mlflow",
    "postgresql://db/mlflow?user=me&password=hunter2",
    "mysql+pymysql://root:hunter2@db:3306/x",
    "me:hunter2@10.0.0.1:6379",
    "ray://me:hunter2@head:10001",
    "s3://AKIAIOSFODNN7EXAMPLE:hunter2@bucket/x",
    "s3://bucket/x?session_token=hunter2",
    "s3://bucket/x?region=eu&secret_key=hunter2",
    "az://container/rows.jsonl?sv=2024-01-01&sig=hunter2",
    "https://host/rows.jsonl?X-Amz-Signature=hunter2",
    "https://host/v1#key=hunter2",
    "https://host/v1?api%5Fkey=hunter2",
    "https://host/v1?AccessKeyId=hunter2",
    "abfss://me:hunter2@account.dfs.core.windows.net/x",
    "https://host/sk-proj-hunter2hunter2hunter2/v1",
]
WITHOUT = [
    "runs/store",
    "/data/me@host/a:b.jsonl",
    "a:b",
    "org/model",
    "package.module:name",
    "10.0.0.1:6379",
    "auto",
    "ray://head:10001",
    "s3://bucket/checkpoints?endpoint_override=http://127.0.0.1:9000&region=eu",
    "s3://bucket/user@example.org/x",
    "abfss://container@account.dfs.core.windows.net/x",
    "sqlite:////runs/a@b.db",
    "hf://datasets/org/name@main/x.jsonl",
    "http://[::1]:8000/v1",
    "sk-learn-toy-rows.jsonl",
]
SETTINGS = [
    "model.path",
    "data.train.path",
    "cluster.address",
    "tracking.uri",
    "training.checkpoint_storage",
    "run_dir",
]


@pytest.mark.parametrize("text", WITH_CREDENTIALS)
def test_credentials_are_found_and_not_shown(text):
    assert holds_credentials(text)
    for message in (f"cannot reach {text}: no", text, f"({text!r})"):
        assert "hunter2" not in without_credentials(message)
    assert without_credentials(without_credentials(text)) == without_credentials(text)


def test_a_message_keeps_what_is_no_secret():
    message = "GET http://me:hun/ter2@mlflow:5000/api?key=hunter2&x=1 failed: (host 'a:b', s3://bucket/x, 10:30)"
    expected = "GET http://***@mlflow:5000/api?key=***&x=1 failed: (host 'a:b', s3://bucket/x, 10:30)"
    assert without_credentials(message) == expected


@pytest.mark.parametrize("text", WITHOUT)
def test_other_places_hold_none(text):
    assert not holds_credentials(text)


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("text", WITH_CREDENTIALS)
def test_they_are_refused_everywhere_and_not_repeated(tmp_path, key, text):
    file = tmp_path / "minimal.yaml"
    file.write_text(MINIMAL)
    with pytest.raises(ConfigError, match=key) as error:
        load_config([file], [f"{key}={text}"])
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["HF_TOKEN", "api_key", "X-Amz-Security-Token", "awsAccessKeyId", "PGPASSWORD", "sig"])
def test_names_of_secrets(name, tmp_path):
    assert is_named_like_a_secret(name)
    file = tmp_path / "minimal.yaml"
    file.write_text(MINIMAL)
    with pytest.raises(ConfigError, match=f"cluster.environment: {name} looks like a secret"):
        load_config([file], [f"cluster.environment={{{name}: x}}"])


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "NCCL_IB_PKEY_INDEX", "RAY_AUTH_MODE", "keyboard", "max_tokens"]
)
def test_names_of_other_things(name):
    assert not is_named_like_a_secret(name)


def test_a_proxy_with_a_password_does_not_belong_into_the_environment(tmp_path):
    file = tmp_path / "minimal.yaml"
    file.write_text(MINIMAL)
    with pytest.raises(ConfigError, match="HTTPS_PROXY looks like a secret") as error:
        load_config([file], ["cluster.environment.HTTPS_PROXY=http://me:hunter2@proxy:3128"])
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["MY_KEY", "OPENAI_API_KEY", "_x", "lower_case_key", "KEY2"])
def test_names_of_variables(name):
    assert is_variable_name(name)
    assert EndpointConfig(url="https://host/v1", model="m", api_key_env=name).key_variable == name


@pytest.mark.parametrize(
    "key",
    [
        "sk-hunter2",
        "sk_live_hunter2hunter2",
        "hf_hunter2HUNTER2hunter2",
        "ghp_hunter2hunter2hunter2",
        "AKIAIOSFODNN7EXAMPLE",
        "d41d8cd98f00b204e9800998ecf8427e",
        "a b",
        "",
        "$MY_KEY",
        "2KEY",
    ],
)
def test_a_key_in_place_of_its_name_is_refused_and_not_repeated(key):
    assert not is_variable_name(key)
    with pytest.raises(ValidationError, match="name of an environment variable") as error:
        EndpointConfig(url="https://host/v1", model="m", api_key_env=key)
    assert not key or key not in error.value.errors()[0]["msg"]


@pytest.mark.parametrize("url", ["http://host/v1", "http://10.0.0.1:8000/v1", "http://127.0.0.1.example.org/v1"])
def test_a_key_is_sent_encrypted_or_to_this_machine_alone(url):
    assert EndpointConfig(url=url, model="m").key_variable is None
    with pytest.raises(ValueError, match="must begin with https"):
        EndpointConfig(url=url, model="m", api_key_env="MY_KEY")
    for other in ("http://127.0.0.1:8000/v1", "http://[::1]/v1", "http://localhost/v1", "https://host/v1"):
        assert EndpointConfig(url=other, model="m", api_key_env="MY_KEY")
    with pytest.raises(ValueError, match="must begin with https"):
        EndpointConfig(url="http://api.openai.com/v1", model="m")


@pytest.mark.parametrize(
    "url", ["https://host/v1?x=1", "https://host/v1#x", "https://host/v1?key=hunter2", "http://[::1"]
)
def test_an_endpoints_url_ends_with_its_path(url):
    with pytest.raises(ValueError, match=r"url must|Invalid IPv6"):
        EndpointConfig(url=url, model="m")


def test_addresses_of_this_machine():
    assert all(map(is_loopback, ("http://127.0.0.1:8265", "localhost:8265", "[::1]:80", "127.8.8.8")))
    assert not any(
        map(is_loopback, ("http://10.0.0.1:8265", "http://127.0.0.1.example.org:8265", "auto", "http://[::1"))
    )
