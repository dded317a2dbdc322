"""The rate at which ranks exchange weights."""

import json
from pathlib import Path

import torch
import torch.distributed as dist

from sftkey_dist.training.diagnostics.bandwidth import all_gather_gb_per_second
from tests.distributed.harness import run_ranks


def measure(out: Path) -> None:
    rate = all_gather_gb_per_second(torch.device("cpu"), most_seconds=0.5)
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(rate))


def test_all_ranks_measure_together_and_end(tmp_path):
    """Gloo over loopback copies in memory: more than a slow network, less than memory itself."""
    run_ranks(2, measure, tmp_path)
    rates = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert all(0.01 < rate < 100 for rate in rates)
