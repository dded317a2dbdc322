"""Tokens a second and utilisation at the shapes of Qwen2.5-1.5B and -3B, beside TRL where it is installed."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.accelerator.material import FULL, GSM8K, KEY, LONG, TAG_TOKENS, Lengths, large_model, make_store, stage
from tests.accelerator.ranks import on_ranks, this_device
from tests.accelerator.timed import WARMUP_STEPS, time_stages, with_prediction

VOCABULARY = 151_936
SHAPES: dict[str, dict[str, Any]] = {
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    "3B": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""Of Qwen2.5's configurations; embeddings are tied."""
STAGES = {"stage 1": FULL, "stage 2": KEY}
ROWS_A_STEP = 16
"""As many as a training has; the optimizer's pass over all weights is then a small part of a step."""
FILLED = 0.97
"""Share of a row that the examples of a step fill on average, so that the planner needs no further row."""


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        shape: of the model.
        lengths: of the examples.
        row_tokens: most tokens in a packed row.
        rows_a_step: of a step.
        settings: of training.
        attention: see `model.attention`.
        environment: of the ranks.
    """

    shape: str
    lengths: Lengths
    row_tokens: int
    rows_a_step: int = ROWS_A_STEP
    settings: dict[str, Any] = field(default_factory=dict)
    attention: str = "packed"
    environment: dict[str, str] = field(default_factory=dict)


RECOMPUTED = {"gradient_checkpointing": True, "logit_chunk_positions": 1024}
CASES = {
    "1.5B": Case("1.5B", GSM8K, 4096),
    "1.5B, rows of 16k": Case("1.5B", GSM8K, 16384, rows_a_step=4),
    "3B": Case("3B", GSM8K, 4096),
    "3B, recomputed": Case("3B", GSM8K, 4096, settings=RECOMPUTED),
    "1.5B, long responses": Case("1.5B", LONG, 4096),
    "1.5B, example by example": Case("1.5B", GSM8K, 4096, attention="packed_sdpa"),
}
"""The most important ones first: a machine that is lent may be taken back before the last."""
TINY_CASES = {"tiny": Case("tiny", GSM8K, 512, rows_a_step=4)}


def measure(scratch: Path, *, tiny: bool) -> Iterator[dict[str, Any]]:
    """All that is known after each case: both stages of every case, and the peer on the first one."""
    cases, models = (TINY_CASES if tiny else CASES), dict[str, Path]()
    vocabulary = 400 if tiny else VOCABULARY
    found: dict[str, Any] = {"rows": {}}
    for name, case in cases.items():
        if case.shape not in models:
            models[case.shape] = model_of(scratch, case.shape, vocabulary)
        found["rows"][name] = time_both_stages(scratch / name.replace(" ", "-"), models[case.shape], case, vocabulary)
        yield found
        if not tiny and len(found["rows"]) == 1:
            found |= _beside_peer(models[case.shape], case, found["rows"][name], scratch)
            yield found


def _beside_peer(model: Path, case: Case, ours: dict[str, Any], scratch: Path) -> dict[str, Any]:
    if not importlib.util.find_spec("trl"):
        return {"trl": "not installed"}
    found: dict[str, Any] = {}
    for way in ("deepspeed", "alone"):
        try:
            found[f"trl_{way}_tokens_per_second"] = _peer(model, case, scratch, with_deepspeed=way == "deepspeed")
        except (subprocess.CalledProcessError, OSError) as error:
            found[f"trl_{way}"] = " ".join(str(error).split())[:300]
    rates = [rate for name, rate in found.items() if name.endswith("_per_second")]
    if rates and "stage 1" in ours:
        found["ours_over_trl"] = ours["stage 1"]["tokens_per_second"] / max(rates)
    return found


def model_of(scratch: Path, shape: str, vocabulary: int) -> Path:
    """A random model of a shape, made by a process that leaves the accelerator again."""
    settings = SHAPES[shape] | {"vocab_size": vocabulary, "tie_word_embeddings": True}
    folder = scratch / f"model-{shape}"
    on_ranks(1, this_device(), large_model, folder, settings | {"max_position_embeddings": 32_768})
    return folder


def time_both_stages(scratch: Path, model: Path, case: Case, vocabulary: int, steps: int = 8) -> dict[str, Any]:
    """Of a case, on one rank: what was measured by stage, or the ``problem`` that the case met."""
    tokens_a_step = FILLED * case.rows_a_step * case.row_tokens
    expected = case.lengths.prompt + case.lengths.reasoning + case.lengths.answer + TAG_TOKENS
    store = make_store(
        scratch / "store", case.lengths, round(1.2 * steps * tokens_a_step / expected), vocabulary, case.row_tokens
    )
    per_step = max(2, int(tokens_a_step / np.asarray(store.segment_counts).sum(axis=1).mean()))
    jobs = [
        stage(
            scratch / f"{scratch.name}-{name.replace(' ', '-')}",
            model,
            store,
            weights,
            attention=case.attention,
            micro_batch_tokens=case.row_tokens,
            segment_metrics_every_steps=1000,
            optimization={"global_batch_size": per_step, "max_steps": steps},
            **case.settings,
        )
        for name, weights in STAGES.items()
    ]
    try:
        (measured,) = on_ranks(1, this_device(), time_stages, jobs, environment=case.environment)
    except Exception as error:  # out of memory, or whatever a case meets on a device; the others go on
        return {"problem": " ".join(str(error).split())[-300:]}
    found = dict(zip(STAGES, map(partial(with_prediction, world_size=1), jobs, measured), strict=True))
    print(json.dumps({scratch.name: found}), flush=True)
    return found


def _peer(model: Path, case: Case, scratch: Path, *, with_deepspeed: bool) -> float:
    """TRL's rate on packed rows as long as ours, with a loss on the same share of tokens."""
    result = scratch / "peer.json"
    trained = case.lengths.reasoning + case.lengths.answer + TAG_TOKENS
    task = {
        "model": str(model),
        "row_tokens": case.row_tokens,
        "rows_a_step": case.rows_a_step,
        "warmup": WARMUP_STEPS,
        "prompt_share": case.lengths.prompt / (case.lengths.prompt + trained),
        "with_deepspeed": with_deepspeed,
    }
    subprocess.run([sys.executable, "-m", "tests.accelerator.peer", json.dumps(task), str(result)], check=True)
    return float(json.loads(result.read_text())["tokens_per_second"])
