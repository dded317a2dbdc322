"""Two ranks over gloo, on one accelerator where there is one: real partitions, and what one rank hands to two."""

from pathlib import Path
from typing import Any

from tests.accelerator import exact, hand_off

LAYOUTS = {name: exact.LAYOUTS[name] for name in ("gathered", "partitioned", "offloaded", "adapters")}


def measure(scratch: Path, *, tiny: bool) -> dict[str, Any]:
    """Layouts against one CPU rank, a stage resumed on one rank, and the hand-off between stages."""
    layouts = exact.compare(scratch / "exact", world_size=2, layouts=LAYOUTS | exact.SEVERAL_RANKS, resumed_on=1)
    between = hand_off.compare(scratch / "hand-off", hidden_size=64 if tiny else 128, stage_1_steps=10, world_size=2)
    return {"exact": layouts, "hand_off": between, "passed": layouts["passed"] and between["passed"]}
