"""What logging every step to MLflow costs training: the same stage with and without, in turn.

``python -m tests.benchmarks.tracking``
"""

import json
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.figures import arguments, median_of, publish
from tests.benchmarks.stage import sftkey

FIRST_STEPS = 20
"""Left out: they find the allocator and the caches cold."""


def main() -> None:
    options = arguments(__doc__ or "")
    pairs, steps = (1, 60) if options.quick else (5, 247)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        ratios = []
        for number in range(pairs):
            seconds = {}
            for tracked in (True, False) if number % 2 else (False, True):
                run = Path(scratch) / f"run-{number}-{tracked}"
                seconds[tracked] = step_seconds(run, store, tracked, steps)
            ratios.append(seconds[True] / seconds[False] - 1)
    figure = median_of(ratios, "", "<= 0.01", f"quickstart, {steps} steps, one log a step, SQLite")
    publish("Tracking", {"logging: share of the step time": figure}, options.json)


def step_seconds(run: Path, store: Path, tracked: bool, steps: int) -> float:
    """Mean seconds of a step of stage 1."""
    sftkey(
        "train",
        "configs/quickstart.yaml",
        f"run_dir={run}",
        f"data.store_dir={store}",
        "strategies=[sft-tag]",
        "validation.guard=null",
        f"optimization.max_steps={steps}",
        f"tracking.enabled={str(tracked).lower()}",
    )
    (file,) = run.glob("stages/*/timings.jsonl")
    timings = [json.loads(line)["seconds"] for line in file.read_text().splitlines()]
    return statistics.fmean(timings[FIRST_STEPS:])


if __name__ == "__main__":
    main()
