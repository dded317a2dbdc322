"""What a stage costs beside its arithmetic, through the real command line: its start, its steps, and its checkpoints.

``python -m tests.benchmarks.stage``. Starts and steps of the quickstart's model are compared with `bare_stage`, started
by torchrun: two ranks with DeepSpeed, without data, validation, records, or a cluster.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.figures import Figure, arguments, median_of, publish
from tests.e2e.conftest import ENTRY_POINT, environment

STEPS_BETWEEN_CHECKPOINTS = 50
STEPS = 30


def main() -> None:
    options = arguments(__doc__ or "", _options)
    with tempfile.TemporaryDirectory() as scratch:
        times = 1 if options.quick else 5
        figures = start_and_steps(Path(scratch) / "start", times)
        figures["last step of a stage to the first of the next"] = between_stages(Path(scratch) / "between", times)
        if not options.quick:
            figures["checkpoint stall"] = checkpoint_stall(Path(scratch) / "checkpoints", options.model, options.data)
    publish("A stage beside its steps", figures, options.json)


def start_and_steps(folder: Path, times: int) -> dict[str, Figure]:
    """The first step and the steps of both sides, in turn, the store being prepared."""
    run = folder / "run"
    base = ["configs/quickstart.yaml", f"run_dir={run}", "tracking.enabled=false", "strategies=[sft-tag]"]
    base += [f"optimization.max_steps={STEPS}", "validation.guard=null", "validation.every_steps=1000"]
    sftkey("prepare", *base)
    (model,) = run.glob("base_model*")
    pairs = [(start_ours(run, base), start_bare(model, folder / "bare.txt")) for _ in range(times)]
    ours, bare = zip(*pairs, strict=True)
    return {
        "first optimizer step after `sftkey train`": median_of([start.seconds for start in ours], "s", "<= 8"),
        "the same after torchrun": median_of([start.seconds for start in bare], "s"),
        "first step, ours / torchrun's": median_of(
            [one.seconds / other.seconds for one, other in pairs], "", "<= 1.5", "quickstart, the store being prepared"
        ),
        "processor time of that, ours / torchrun's": median_of(
            [one.processor_seconds / other.processor_seconds for one, other in pairs],
            "",
            against=f"{statistics.median(start.processor_seconds for start in bare):.1f} s",
        ),
        "a step, ours / bare": median_of(
            [one.step_seconds / other.step_seconds for one, other in pairs],
            "",
            against=f"{statistics.median(start.step_seconds for start in bare):.3f} s, 16 rows of 156 tokens",
        ),
    }


@dataclass(frozen=True)
class Start:
    """How one side started.

    Attributes:
        seconds: from the command to the end of the first step.
        processor_seconds: of all its processes until then.
        step_seconds: median of the later steps.
    """

    seconds: float
    processor_seconds: float
    step_seconds: float


def start_ours(run: Path, base: list[str]) -> Start:
    """Train through the command line, up to the first record and on to the end."""
    shutil.rmtree(run / "stages", ignore_errors=True)
    seconds, processor_seconds = _until_first_step(
        [*ENTRY_POINT, "train", *base], lambda: any(file.stat().st_size for file in run.glob("stages/*/metrics.jsonl"))
    )
    (file,) = run.glob("stages/*/timings.jsonl")
    timings = [json.loads(line)["seconds"] for line in file.read_text().splitlines()]
    return Start(seconds, processor_seconds, statistics.median(timings[1:]))


def start_bare(model: Path, file: Path) -> Start:
    """Train with torchrun on the same model."""
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "tests.benchmarks.bare_stage"]
    seconds, processor_seconds = _until_first_step([*command, model, STEPS, file], file.is_file)
    return Start(seconds, processor_seconds, statistics.median(map(float, file.read_text().split()[1:])))


def _until_first_step(command: Sequence[object], has_stepped: Callable[[], bool]) -> tuple[float, float]:
    """Seconds of a command, and of processors, until it has stepped; it is run to its end."""
    started, spent = time.perf_counter(), _ProcessorSeconds()
    with _running(command) as process:
        while not has_stepped():
            _require_running(process)
            spent.look(process.pid)
            time.sleep(0.1)
        seconds = time.perf_counter() - started
    return seconds, spent.total


@contextmanager
def _running(command: Sequence[object]) -> Iterator[subprocess.Popen[bytes]]:
    """A command without output, which is run to its end, or ended if the block fails."""
    process = subprocess.Popen(
        list(map(str, command)), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
        if process.wait():
            raise SystemExit("the stage failed")
    finally:
        process.terminate()
        process.wait()


def _require_running(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        raise SystemExit("the command ended without the step")


class _ProcessorSeconds:
    """What a process and its descendants have spent, including those that have ended since they were last seen."""

    def __init__(self) -> None:
        self._of: dict[int, float] = {}

    def look(self, pid: int) -> None:
        with suppress(psutil.Error):
            parent = psutil.Process(pid)
            for process in (parent, *parent.children(recursive=True)):
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self._of[process.pid] = times.user + times.system

    @property
    def total(self) -> float:
        return sum(self._of.values())


def between_stages(folder: Path, times: int) -> Figure:
    """Seconds from the last step of stage 1 to the first of stage 2, with the same workers: the model is validated and
    exported, and the next stage is planned and begun."""
    run, seconds = folder / "run", []
    base = ["configs/quickstart.yaml", f"run_dir={run}", "tracking.enabled=false", "strategies=[sftkey-tag]"]
    base += [f"optimization.max_steps={STEPS}", f"key_stage.optimization.max_steps={STEPS}", "validation.guard=null"]
    sftkey("prepare", *base)
    for _ in range(times):
        shutil.rmtree(run / "stages", ignore_errors=True)
        with _running([*ENTRY_POINT, "train", *base]) as process:
            while not (second := [file for file in run.glob("stages/*-key-*/metrics.jsonl") if file.stat().st_size]):
                _require_running(process)
                time.sleep(0.01)
            began = time.time()
            (first,) = (file for file in run.glob("stages/*/metrics.jsonl") if file not in second)
            seconds.append(began - first.stat().st_mtime)
    return median_of(seconds, "s", "<= 1", "quickstart, the workers being kept")


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
