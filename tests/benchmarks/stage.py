"""What a stage costs beside its steps, through the real command line: its start, and its checkpoints.

``python -m tests.benchmarks.stage``
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.benchmarks.figures import Figure, arguments, median_of, publish
from tests.e2e.conftest import ENTRY_POINT, environment

STEPS_BETWEEN_CHECKPOINTS = 50


def main() -> None:
    options = arguments(__doc__ or "", _options)
    with tempfile.TemporaryDirectory() as scratch:
        figures = {
            "first optimizer step after `sftkey train`": median_of(
                time_to_first_step(Path(scratch) / "start", 1 if options.quick else 3), "s", "<= 25", "quickstart"
            )
        }
        if not options.quick:
            figures["checkpoint stall"] = checkpoint_stall(Path(scratch) / "checkpoints", options.model, options.data)
    publish("A stage beside its steps", figures, options.json)


def time_to_first_step(folder: Path, times: int) -> list[float]:
    """Seconds from the command to the first record, the store being prepared."""
    run = folder / "run"
    base = ["configs/quickstart.yaml", f"run_dir={run}", "tracking.enabled=false"]
    base += ["strategies=[sft-tag]", "optimization.max_steps=2"]
    sftkey("prepare", *base)
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        process = subprocess.Popen([*ENTRY_POINT, "train", *base], env=environment(), stdout=subprocess.DEVNULL)
        while not any(file.stat().st_size for file in run.glob("stages/*/metrics.jsonl")):
            if process.poll() is not None:
                raise SystemExit("the stage ended without a step")
            time.sleep(0.05)
        seconds.append(time.perf_counter() - started)
        if process.wait():
            raise SystemExit("the stage failed")
        shutil.rmtree(run / "stages")
    return seconds


def checkpoint_stall(folder: Path, model: Path, data: Path) -> Figure:
    """Time that a checkpoint takes from training, as a share of 50 steps.

    Steps that a checkpoint's writing runs beside are compared with the others: what they take longer counts.
    """
    sftkey(
        "train",
        "configs/gsm8k.yaml",
        "configs/models/smollm2_135m.yaml",
        f"run_dir={folder / 'run'}",
        f"data.store_dir={folder / 'store'}",
        f"model.path={model.absolute()}",
        *(f"data.{split}={{adapter: gsm8k, path: {data / split}.jsonl, limit: 1000}}" for split in ("train", "test")),
        "tracking.enabled=false",
        "strategies=[sft-tag]",
        "optimization.global_batch_size=16",
        "optimization.max_steps=12",
        "training.checkpoint_every_steps=3",
    )
    (file,) = (folder / "run").glob("stages/*/timings.jsonl")
    timings = [json.loads(line) for line in file.read_text().splitlines()]
    stalls = [timing["phase_seconds"].get("checkpoint", 0.0) for timing in timings]
    beside = [timings[step + 1]["seconds"] for step, stall in enumerate(stalls) if stall and step + 1 < len(timings)]
    alone = [t["seconds"] for step, t in enumerate(timings) if step > 1 and not stalls[step - 1]]
    step_seconds = statistics.median(alone)
    costs = [
        stall + max(0.0, seconds - step_seconds) for stall, seconds in zip(filter(None, stalls), beside, strict=True)
    ]
    shares = [cost / (STEPS_BETWEEN_CHECKPOINTS * step_seconds) for cost in costs]
    return median_of(shares, "of run time", "<= 0.03", f"SmolLM2-135M, every {STEPS_BETWEEN_CHECKPOINTS} steps")


def sftkey(*command: str) -> None:
    done = subprocess.run([*ENTRY_POINT, *command], env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/gsm8k"), help="folder with train.jsonl")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"))


if __name__ == "__main__":
    main()
