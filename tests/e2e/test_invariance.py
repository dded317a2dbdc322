"""The same run through the real command line, laid out differently: per step, loss and gradient norm stay the same.

Answers have 8 to 320 tokens and a step has three examples, so on three ranks one rank trains forty times as many tokens
as another, and in the last step of an epoch, which has one example, two ranks train none (huggingface/trl#6696).
"""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

from sftkey_dist.config import load_config
from sftkey_dist.run_dir.journal import read_records
from tests.distributed.runs import train_without_ray
from tests.e2e.conftest import train_stages

TWO_RANKS = "two ranks, rows of one example, recomputed, through the command line"
THREE_RANKS = "three ranks, gathered layer by layer, offloaded, dense mask"
LAYOUTS = {
    TWO_RANKS: [
        "cluster.num_workers=2",
        "training.micro_batch_tokens=700",
        "training.gradient_checkpointing=true",
    ],
    THREE_RANKS: [
        "cluster.num_workers=3",
        "training.zero.max_gathered_gib=0",
        "training.zero.offload=cpu",
        "model.attention=sdpa",
    ],
}
ANSWER_WORDS = (8, 64, 320)
NUM_ROWS, BATCH = 13, 3


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Path:
    untied = tmp_path / "untied"
    set_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=False)).save_pretrained(
        untied
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(untied)
    random = np.random.default_rng(0)
    rows = [
        {
            "prompt": f"case {number}",
            "reasoning": " ".join(str(word) for word in random.integers(0, 9, 10)),
            "answer": " ".join(str(word) for word in random.integers(0, 9, ANSWER_WORDS[number % 3] // 2)),
        }
        for number in range(NUM_ROWS)
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "invariance.yaml"
    source = {"adapter": "records", "prompt": "{prompt}", "columns": {"reasoning": "reasoning", "answer": "answer"}}
    settings = {
        "run_dir": "runs/base",
        "model": {"path": str(untied)},
        "data": {
            "train": {**source, "path": str(tmp_path / "train.jsonl")},
            "test": {**source, "path": str(tmp_path / "test.jsonl")},
            "max_length_tokens": 700,
            "store_dir": str(tmp_path / "runs" / "store"),
        },
        "strategies": ["sftkey-tag"],
        "optimization": {"global_batch_size": BATCH, "num_epochs": 1, "learning_rate": 3.0e-3},
        "key_stage": {"optimization": {"learning_rate": 3.0e-3}},
        "training": {"micro_batch_tokens": 3000},
        "cluster": {"num_workers": 1},
        "tracking": {"enabled": False},
    }
    file.write_text(json.dumps(settings))
    return file


def test_ranks_rows_recomputation_gathering_offload_and_mask_change_nothing(sftkey, config, tmp_path):
    base = without_ray(config, tmp_path / "runs" / "base", 1)
    assert [len(stage) for stage in base] == [-(-NUM_ROWS // BATCH)] * 2
    largest_step = max(base[1], key=lambda record: record["loss_tokens"])
    assert largest_step["loss_tokens"] > 5 * min(record["loss_tokens"] for record in base[1])
    others = {
        TWO_RANKS: train_stages(sftkey, config, tmp_path / "runs" / "two", *LAYOUTS[TWO_RANKS]),
        THREE_RANKS: without_ray(config, tmp_path / "runs" / "three", 3, *LAYOUTS[THREE_RANKS]),
    }
    for layout, stages in others.items():
        for stage, expected in zip(stages, base, strict=True):
            for measure, most, mean in (("loss", 1e-4, 2e-5), ("grad_norm", 2e-3, 4e-4)):
                ours, theirs = (np.array([record[measure] for record in records]) for records in (stage, expected))
                deviation = np.abs(ours / theirs - 1)
                assert deviation.max() < most, (layout, measure)
                assert deviation.mean() < mean, (layout, measure)


def without_ray(config: Path, run_dir: Path, world_size: int, *overrides: str) -> list[list[dict]]:
    """Both stages on plain processes."""
    stages = train_without_ray(load_config([config], [f"run_dir={run_dir}", *overrides]), world_size)
    return [read_records(stage.metrics) for stage in stages]
