"""Runs of the real command line in processes of their own, each with its own Ray cluster and folders."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from sftkey_dist.run_dir.journal import read_records
from tests.e2e.forked import run_forked

TOKEN = "RAY_AUTH_TOKEN"
ENTRY_POINT = [sys.executable, "-c", "from sftkey_dist.cli import main; main()"]


def environment() -> dict[str, str]:
    """The test's environment without a cluster or tracking server that the person running it may use."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return kept | {"COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture
def sftkey(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `sftkey` with arguments in the test's folder."""

    def run(*arguments: object, timeout_seconds: float = 400) -> subprocess.CompletedProcess[str]:
        texts, variables = list(map(str, arguments)), environment()
        if TOKEN not in variables:
            return run_forked(texts, tmp_path, variables, tmp_path_factory.mktemp("outputs"), timeout_seconds)
        # Ray reads it when it is imported, which the server of forked processes has done.
        command = [*ENTRY_POINT, *texts]
        return subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=timeout_seconds
        )

    return run


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_model: Path) -> Path:
    """A configuration whose whole run takes seconds of training."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "run_dir": "runs/tiny",
                "model": {"path": str(tiny_model)},
                "data": {
                    "train": {"adapter": "decision_memos", "limit": 64},
                    "test": {"adapter": "decision_memos", "split": "test", "limit": 8},
                    "max_length_tokens": 400,
                    "store_dir": "runs/store",
                },
                "strategies": ["sft-tag", "sftkey-tag"],
                "optimization": {"global_batch_size": 8, "num_epochs": 1, "learning_rate": 1.0e-3},
                "key_stage": {"optimization": {"num_epochs": 3}},
                "training": {"micro_batch_tokens": 1600, "checkpoint_every_steps": 4},
                "evaluation": {"max_new_tokens": 8, "batch_size": 8},  # one batch, so that one actor loads the model
                "tracking": {"max_model_gib": 0},  # logging a model loads it, which takes as long as training it
            }
        )
    )
    return file


def train_stages(sftkey, config: Path, run_dir: Path, *overrides: str) -> list[list[dict]]:
    """Metrics, step by step, of the stages of a run of one strategy, in order."""
    done = sftkey("train", config, f"run_dir={run_dir}", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    # A name lists the objectives so far and ends in a hash: later stages have longer names, in no alphabetical order.
    stages = sorted((run_dir / "stages").iterdir(), key=lambda folder: len(folder.name))
    return [read_records(stage / "metrics.jsonl") for stage in stages]


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a user's mistake prints."""
    lines: Sequence[str] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]
