"""`~` and variables in every setting that is a path, and nowhere else."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from sftkey_dist.config import load_config, load_study
from sftkey_dist.config.paths import LocalPath, Location, expanded, local_path
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.config.study import StudyConfig
from sftkey_dist.errors import ConfigError

MINIMAL = """
run_dir: ~/sftkey_runs/x
model: {path: $MODELS/small}
data:
  train: {adapter: gsm8k, path: "${MODELS}/train*.jsonl"}
  test: {adapter: gsm8k, path: ~/test.jsonl}
  store_dir: $HOME/store
"""


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELS", "/models")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("API_KEY", "hunter2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://alice:hunter2@db/mlflow")
    monkeypatch.setenv("SERVER", "alice:hunter2@mlflow")
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def minimal(tmp_path):
    file = tmp_path / "minimal.yaml"
    file.write_text(MINIMAL)
    return file


def test_inputs_and_outputs_alike(minimal, home):
    config = load_config([minimal], ["evaluation.judge={judges: [{path: ~/judge}], template: ~/t.txt, cache_dir: ~/c}"])
    assert config.run_dir == home / "sftkey_runs/x"
    assert config.data.store_dir == home / "store"
    assert config.model.path == "/models/small"
    assert config.data.train[0].path == "/models/train*.jsonl"
    assert config.data.test[0].path == f"{home}/test.jsonl"
    assert config.evaluation.judge.judges[0].path == f"{home}/judge"
    assert config.evaluation.judge.template == f"{home}/t.txt"
    assert config.evaluation.judge.cache_dir == home / "c"


def test_overrides_and_studies_and_stores_alike(minimal, home, tmp_path):
    config = load_config([minimal], ["run_dir=~/runs/x", "tracking.uri=sqlite:///~/mlflow.db"])
    assert (config.run_dir, config.tracking.uri) == (home / "runs/x", f"sqlite:///{home}/mlflow.db")
    storage = "training.checkpoint_storage=s3://bucket/$MODELS"
    assert load_config([minimal], [storage]).training.checkpoint_storage == "s3://bucket//models"
    study = tmp_path / "study.yaml"
    study.write_text(MINIMAL + "study: {title: t, seeds: [0], variants: {a: {config: {data: {store_dir: ~/a}}}}}\n")
    assert load_study([study]).folder == home / "sftkey_runs/x"
    assert load_study([study]).runs[0].config.data.store_dir == home / "a"
    assert load_study([study], ["run_dir=$HOME/y"]).runs[0].config.run_dir == home / "y/a/seed-0"


def test_text_is_no_path(minimal):
    config = load_config([minimal], ["prompt.system=~ costs $HOME and $NOWHERE", "cluster.environment={A: $HOME}"])
    assert config.prompt.system == "~ costs $HOME and $NOWHERE"
    assert config.cluster.environment == {"A": "$HOME"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run_dir=$NOWHERE/x", "run_dir: $NOWHERE: the environment variable NOWHERE is not set"),
        ("data.store_dir=${NOWHERE}/x", "data.store_dir: ${NOWHERE}: the environment variable NOWHERE is not set"),
        ("data.train.path=$EMPTY/x", "data.train.path: $EMPTY: the environment variable EMPTY is not set or is empty"),
        ("data.store_dir=${HOME:-/x}", "only ~, $NAME and ${NAME}"),
        ("run_dir=$(pwd)/${}", "only ~, $NAME and ${NAME}"),
        ("run_dir=~no_such_user/x", "there is no home folder ~no_such_user"),
        ("model.path=/x/$API_KEY", "$API_KEY looks like a secret"),
        ("tracking.uri=$DATABASE_URL", "tracking.uri: must not contain credentials"),
        ("tracking.uri=http://$SERVER/", "tracking.uri: must not contain credentials"),
        ("run_dir=s3://bucket/run", "not a URI"),
        ("run_dir=a\0b", "control character"),
        ("run_dir=a\nb", "control character"),
        ("data.train.path=a\x1b[31mb", "control character"),
    ],
)
def test_what_cannot_be_expanded_is_refused_by_name(minimal, override, message):
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["runs/x", "./~", "a~b", "cost$", "$5", "a=b", "Run #1 50%25 ünï?x=1/a b", "org/model"]
)
def test_other_names_stay_as_they_are(text):
    assert expanded(text) == text
    assert local_path(text) == text


def test_what_is_expanded_stays_so(minimal):
    config = load_config([minimal])
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def fields_of(section, prefix=""):
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        for part in parts_of(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from fields_of(part, f"{prefix}{name}.")


def parts_of(annotation):
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def expands(field):
    notes = [*get_args(LocalPath)[1:], *get_args(Location)[1:]]
    return any(note in notes for note in (*field.metadata, *parts_of(field.annotation)))


def test_no_path_is_left_out():
    """A setting of pathlib's type, or with a name that says path, folder, address or URI, is expanded and checked."""
    fields = {name: field for section in (RunConfig, SegmentConfig, StudyConfig) for name, field in fields_of(section)}
    paths = {
        name
        for name, field in fields.items()
        if Path in parts_of(field.annotation)
        or name.rpartition(".")[2] in ("path", "address", "uri", "checkpoint_storage", "template", "rubric", "function")
    }
    assert {"run_dir", "data.store_dir", "model.path", "cluster.address", "data.train.path"} <= paths
    assert {name for name in paths if not expands(fields[name])} == {"prompt.template"}, "a choice of three"
