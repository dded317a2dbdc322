"""A stage of ten steps on two ranks, with a checkpoint every three."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sftkey_dist.config.strategy import OptimizationConfig
from sftkey_dist.config.training import TrainingConfig, ZeroConfig
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.training.job import StageJob
from tests.distributed.harness import make_store
from tests.stage_job import make_stage_job

FULL = (0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
NUM_STEPS, EVERY = 10, 3


@pytest.fixture(scope="session")
def store(tmp_path_factory, contract, tiny_model) -> EncodedStore:
    return make_store(tmp_path_factory.mktemp("store"), contract, tiny_model)


@pytest.fixture(scope="session")
def make_job(store, tiny_model) -> Callable[[Path], StageJob]:
    def make(folder: Path) -> StageJob:
        return make_stage_job(
            folder / "stage",
            tiny_model,
            store.path,
            FULL,
            optimization=OptimizationConfig(global_batch_size=4, num_epochs=9, max_steps=NUM_STEPS, learning_rate=3e-3),
            training=TrainingConfig(
                micro_batch_tokens=700,
                checkpoint_every_steps=EVERY,
                zero=ZeroConfig(max_gathered_gib=0),
                collective_timeout_seconds=30,
            ),
        )

    return make
