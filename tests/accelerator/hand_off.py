"""What stage 2 learns at a tenth of the 70B configuration's rate, and how much of it the exported folder keeps.

Stage 1 is trained in bfloat16 once; every second stage starts from it at a peak rate of 5e-7 for 29 steps. They differ
in what stage 1 hands on to them. The answer's nll is measured in float32 arithmetic on the exported folders, outside of
the trainer.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.training.job import StageJob
from tests.accelerator.material import FULL, KEY, SEGMENTS, stage, tiny_model
from tests.accelerator.ranks import on_ranks, this_device
from tests.distributed.harness import make_store, train

PEAK_RATE, SHIPPED_STEPS = 5e-7, 29
MIN_SHARE = 0.8
"""Of the gain in float32."""


def measure(scratch: Path, *, tiny: bool) -> dict[str, Any]:
    """Gains of stage 2 by precision and hand-off."""
    return compare(scratch, hidden_size=64 if tiny else 256, stage_1_steps=10 if tiny else 40, world_size=1)


def compare(scratch: Path, *, hidden_size: int, stage_1_steps: int, world_size: int) -> dict[str, Any]:
    """
    Args:
        scratch: folder to work in.
        hidden_size: of the model.
        stage_1_steps: of the stage that the second ones continue from.
        world_size: ranks.
    """
    model = tiny_model(scratch / "model", hidden_size)
    store = make_store(scratch / "store", ResponseContract(), model)
    first = stage(
        scratch / "full",
        model,
        store,
        FULL,
        micro_batch_tokens=1024,
        optimization=_optimization(stage_1_steps, 1e-3),
    ).model_copy(update={"hands_on_masters": True})
    on_ranks(world_size, this_device(), train, [first])
    exact = whole_in_float32(first.stage_dir, scratch / "exact")
    seconds = {
        "bfloat16, from the rounded folder": _second(scratch / "rounded", first.stage_dir / "model", store),
        "bfloat16, from the masters": _second(
            scratch / "masters", first.stage_dir / "model", store, first.stage_dir / "masters"
        ),
        "float32, from the masters": _second(scratch / "float32", exact, store, precision="float32"),
    }
    on_ranks(world_size, this_device(), train, list(seconds.values()))
    start = answer_nll(first.stage_dir / "model", store), answer_nll(exact, store)
    rows = {name: _row(job, store, start[job.precision == "float32"]) for name, job in seconds.items()}
    expected = rows["float32, from the masters"]["gain"]
    for row in rows.values():
        row["share_of_float32"] = row["gain"] / expected
    return {
        "model_parameters": sum(value.numel() for value in load_file(exact / "model.safetensors").values()),
        "learning_rate": PEAK_RATE,
        "steps": SHIPPED_STEPS,
        "rows": rows,
        "passed": rows["bfloat16, from the masters"]["share_of_float32"] >= MIN_SHARE,
    }


def _second(
    folder: Path,
    model: Path,
    store: EncodedStore,
    masters: Path | None = None,
    precision: str = "bfloat16",
) -> StageJob:
    job = stage(
        folder,
        model,
        store,
        KEY,
        precision=precision,
        micro_batch_tokens=1024,
        optimization=_optimization(SHIPPED_STEPS, PEAK_RATE),
    )
    return job.model_copy(update={"masters_dir": masters})


def _optimization(steps: int, rate: float) -> dict[str, Any]:
    return {"global_batch_size": 8, "num_epochs": 99, "max_steps": steps, "learning_rate": rate}


def _row(job: StageJob, store: EncodedStore, start: float) -> dict[str, Any]:
    rounding = json.loads((job.stage_dir / "rounding.json").read_text())
    end = answer_nll(job.stage_dir / "model", store)
    return {
        "start": start,
        "end": end,
        "gain": start - end,
        "surviving_share": rounding["surviving_share"],
        "changed_share": rounding["num_changed"] / rounding["num_weights"],
    }


def whole_in_float32(stage_dir: Path, folder: Path) -> Path:
    """A stage's model folder with its masters as weights: what float32 training would have handed on."""
    shutil.copytree(stage_dir / "model", folder)
    weights: dict[str, torch.Tensor] = {}
    for file in (stage_dir / "masters").glob("*.safetensors"):
        weights |= load_file(file)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@torch.no_grad()
def answer_nll(folder: Path, store: EncodedStore, indices: Sequence[int] | None = None) -> float:
    """Mean nll of the answer's tokens in nats, by plain transformers in float32, example by example."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answer, total, count = SEGMENTS.index("answer"), 0.0, 0
    for index in indices if indices is not None else range(len(store)):
        ids, segments = store.example(index)
        log_probabilities = model(input_ids=torch.tensor(ids)[None]).logits[0].double().log_softmax(-1)
        for position in np.flatnonzero(segments == answer):
            total -= float(log_probabilities[position - 1, ids[position]])
            count += 1
    return total / count
