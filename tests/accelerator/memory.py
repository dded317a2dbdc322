"""Memory of a rank, predicted by the capacity model and measured."""

from pathlib import Path
from typing import Any

from tests.accelerator.material import GSM8K
from tests.accelerator.throughput import RECOMPUTED, VOCABULARY, Case, model_of, time_both_stages

EXPANDABLE = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
CASES = {
    "rows of 4k": Case("1.5B", GSM8K, 4096),
    "rows of 4k, expandable segments": Case("1.5B", GSM8K, 4096, environment=EXPANDABLE),
    "rows of 8k, recomputed": Case("1.5B", GSM8K, 8192, settings=RECOMPUTED),
    "rows of 8k, recomputed, logits whole": Case("1.5B", GSM8K, 8192, settings={"gradient_checkpointing": True}),
}
TINY_CASES = {"tiny": Case("tiny", GSM8K, 512, rows_a_step=4)}


def measure(scratch: Path, *, tiny: bool) -> dict[str, Any]:
    """Of both stages, case by case."""
    cases = TINY_CASES if tiny else CASES
    vocabulary, shape = (400, "tiny") if tiny else (VOCABULARY, "1.5B")
    model = model_of(scratch, shape, vocabulary)
    rows = {
        name: time_both_stages(scratch / name.replace(" ", "-"), model, case, vocabulary, steps=6)
        for name, case in cases.items()
    }
    return {"rows": rows}
