"""Fixtures shared by all tests: a tiny tokenizer and model made on the spot, so that nothing is downloaded."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.model import EmbeddedModelConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.models.embedded import make_embedded_model
from sftkey_dist.models.load import load_tokenizer

# Models here are tiny: a second thread has next to nothing to do, and the first waits for it on a busy machine.
torch.set_num_threads(1)
TINY_MODEL = EmbeddedModelConfig(
    vocab_size=400, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1
)


FOLDERS_OF_CLUSTERS = {"distributed", "e2e", "faults"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `cluster` what lies in folders of such tests, before tests are chosen, and put long ones first."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in FOLDERS_OF_CLUSTERS and item.get_closest_marker("single_process") is None:
            item.add_marker("cluster")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def memos() -> list[Example]:
    return list(generate_memos("train", 60, seed=0))


@pytest.fixture(scope="session")
def contract() -> ResponseContract:
    return ResponseContract()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, memos: list[Example], contract: ResponseContract) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    texts = ["".join(p.text for p in contract.render(memo.values, form)) for memo in memos for form in Form]
    make_embedded_model(folder, TINY_MODEL, texts, seed=0)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path):
    return load_tokenizer(tiny_model)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of MLflow's. Making one takes seconds, so tests that are not about that copy this one."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def run_config(tmp_path: Path, tiny_model: Path) -> RunConfig:
    """A run that a test can afford; every path is below the test's own folder."""
    return RunConfig.model_validate(
        {
            "run_dir": tmp_path / "runs" / "tiny",
            "model": {"path": str(tiny_model)},
            "data": {
                "train": SourceConfig(adapter="decision_memos", limit=48),
                "test": SourceConfig(adapter="decision_memos", split="test", limit=6),
                "max_length_tokens": 512,
                "store_dir": tmp_path / "runs" / "store",
            },
            "optimization": {"global_batch_size": 8, "num_epochs": 4, "learning_rate": 3e-3, "warmup_ratio": 0.1},
            "training": {"micro_batch_tokens": 1024},
            "evaluation": {"max_new_tokens": 8},
        }
    )
