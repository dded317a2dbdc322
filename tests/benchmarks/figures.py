"""What every benchmark shares: its options, alternating timed pairs, peak memory, and the file of figures."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "deepspeed", "ray", "mlflow", "numpy")
console = Console(highlight=False)


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        value: the median where there are several measurements.
        unit: of the value.
        goal: what it should reach, with the direction, such as "<= 1.3".
        spread: lowest and highest measurement.
        against: what it was measured against, or how.
    """

    value: float
    unit: str
    goal: str | None = None
    spread: tuple[float, float] | None = None
    against: str | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        sign, _, bound = self.goal.partition(" ")
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)


def median_of(values: Sequence[float], unit: str, goal: str | None = None, against: str | None = None) -> Figure:
    """A figure of several measurements."""
    return Figure(statistics.median(values), unit, goal, (min(values), max(values)), against)


def arguments(description: str, options: Callable[[argparse.ArgumentParser], None] = lambda parser: None) -> Any:
    """The command line of a benchmark: ``--json``, ``--quick`` and its own options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="a smoke test of a minute, not for quoting")
    options(parser)
    return parser.parse_args()


def publish(title: str, figures: dict[str, Figure], file: Path | None) -> None:
    """Print the figures as a table and write them to a file."""
    table = Table(title=title)
    for heading in ("figure", "value", "spread", "goal", "met", "against"):
        table.add_column(heading)
    for name, figure in figures.items():
        spread = f"{figure.spread[0]:.4g}-{figure.spread[1]:.4g}" if figure.spread else ""
        met = {None: "", True: "yes", False: "no"}[figure.is_met]
        table.add_row(name, f"{figure.value:.4g} {figure.unit}", spread, figure.goal or "", met, figure.against or "")
    console.print(table)
    if file is not None:
        content = {
            "figures": {name: asdict(figure) for name, figure in figures.items()},
            "machine": machine(),
            "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
            "commit": _commit(),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Where the figures were measured."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_gib(), 1),
        "python": platform.python_version(),
    }


def memory_gib() -> float:
    """Of this machine, swap not counted."""
    return float(psutil.virtual_memory().total) / 2**30


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Measurements of both sides in turn, after a warm-up of each, so that a noisy machine hits both alike."""
    ours()
    theirs()
    measured = [(ours(), theirs()) for _ in range(pairs)]
    return [pair[0] for pair in measured], [pair[1] for pair in measured]


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Bytes that this process's children use together at their peak; pages they share count once (PSS)."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.2):
            peak = max(peak, sum(_pss(child) for child in psutil.Process().children(recursive=True)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: peak
    finally:
        stop.set()
        watcher.join()


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"
