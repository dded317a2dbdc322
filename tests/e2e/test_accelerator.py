"""On a CUDA device: the same numbers as on the CPU, in every precision, attention and place that can be set."""

import importlib.util
from pathlib import Path

import pytest
import torch

from sftkey_dist.run_dir.journal import read_records
from sftkey_dist.training.checkpoint.shards import HostCopy
from tests.e2e.conftest import train_stages

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

ON_GPU = ("cluster.num_workers=1", "cluster.gpus_per_worker=1")
LAYOUTS = {
    "float32": (1e-3, ["training.precision=float32"]),
    "bfloat16": (2e-3, ["training.precision=bfloat16"]),
    "partitioned": (2e-3, ["training.zero.max_gathered_gib=0"]),
    "offloaded": (2e-3, ["training.zero={offload: cpu, offload_weights: true, max_gathered_gib: 0}"]),
    "recomputed": (2e-3, ["training.gradient_checkpointing=true"]),
    "dense mask": (2e-3, ["model.attention=sdpa"]),
}
"""Each with the largest relative deviation of a step's loss from the CPU's."""


@pytest.fixture
def losses(sftkey, tiny_config, tmp_path):
    """Loss of every step of both stages, trained with overrides."""

    def train(name: str, *overrides: str) -> list[float]:
        stages = train_stages(sftkey, tiny_config, tmp_path / name, "strategies=[sftkey-tag]", *overrides)
        assert len(stages) == 2
        return [record["loss"] for records in stages for record in records]

    return train


def test_losses_are_those_of_the_cpu(losses):
    on_cpu = losses("cpu")
    assert on_cpu
    for layout, (tolerance, overrides) in LAYOUTS.items():
        assert losses(layout, *ON_GPU, *overrides) == pytest.approx(on_cpu, rel=tolerance), layout


@pytest.mark.skipif(not importlib.util.find_spec("flash_attn"), reason="needs flash-attn")
def test_flash_attention_gives_the_losses_of_the_cpu(losses):
    assert losses("flash", *ON_GPU, "model.attention=flash_attention_2") == pytest.approx(losses("cpu"), rel=2e-3)


@pytest.mark.parametrize("numel", [1, 12_345, 2**24, 2**24 + 1, 5 * 2**23])
def test_snapshots_are_what_was_copied(numel):
    """Through two pinned buffers of 2**24 values, which are used again and again."""
    copy, values = HostCopy(), torch.randn(numel, device="cuda")
    assert torch.equal(copy(values), values.cpu())
    assert torch.equal(copy(values.bfloat16()), values.bfloat16().cpu())


def test_utilisation_of_a_known_device_is_recorded(losses, tmp_path: Path):
    losses("watched", *ON_GPU)
    timings = [
        record for file in (tmp_path / "watched").glob("stages/*/timings.jsonl") for record in read_records(file)
    ]
    assert timings
    assert all(0 < record["mfu"] < 1 for record in timings if "mfu" in record)
    assert all(record["peak_memory_gib"] < 8 for record in timings), "of the device, not of the host"
