"""Loading and exporting a model of 2 GB on 1, 2 and 4 ranks: one file from rank 0, and several from all ranks.

``python -m tests.benchmarks.export``. Exports alternate. Memory is the most that a process took beside what
it held before and keeps after, without pages of files, which the kernel takes back when it needs them.
"""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from transformers.integrations import HfDeepSpeedConfig

from sftkey_dist.config.model import EmbeddedModelConfig
from sftkey_dist.models.embedded import make_embedded_model
from sftkey_dist.training.allocator import return_freed_memory
from sftkey_dist.training.engine.deepspeed_config import WeightSizes, deepspeed_config
from sftkey_dist.training.engine.loading import load_partitioned
from sftkey_dist.training.engine.zero import ZeroEngine
from sftkey_dist.training.export import export_model
from sftkey_dist.training.job import StageJob
from tests.benchmarks.figures import Figure, arguments, median_of, publish
from tests.distributed.harness import run_ranks
from tests.stage_job import make_stage_job

FILES = 8
"""Files that the side by side export writes; a file of the largest models is 5 GB."""


def main() -> None:
    options = arguments(__doc__ or "")
    ranks, layers, times = ((1, 2), 2, 1) if options.quick else ((1, 2, 4), 15, 3)
    shape = EmbeddedModelConfig(
        vocab_size=400, hidden_size=1536, intermediate_size=6144, num_layers=layers, num_heads=12, num_kv_heads=2
    )
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        make_embedded_model(model, shape, ["nothing is read"], seed=0)
        for number in ranks:
            figures |= _figures(number, model, Path(scratch) / f"{number}-ranks", times)
    publish("Loading and exporting", figures, options.json)


def _figures(ranks: int, model: Path, folder: Path, times: int) -> dict[str, Figure]:
    run_ranks(ranks, measure_loading, model, folder)
    run_ranks(ranks, measure_exports, model, folder, times)
    measured = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    loads = [json.loads((folder / f"load-{rank}.json").read_text()) for rank in range(ranks)]
    size, name = _bytes_of(model), f"{ranks} ranks" if ranks > 1 else "1 rank"
    figures = {
        f"{name}, load": Figure(max(load["seconds"] for load in loads), "s", against=f"{size / 1e9:.2f} GB"),
        f"{name}, load, read by all ranks": Figure(sum(load["read"] for load in loads) / 1e9, "GB"),
        f"{name}, load, memory of a rank": Figure((max(load["memory"] for load in loads) - size / ranks) / 1e9, "GB"),
    }
    for way in ("one file", "side by side"):
        seconds = [max(column) for column in zip(*(rank[way]["seconds"] for rank in measured), strict=True)]
        memory = [max(column) / 1e9 for column in zip(*(rank[way]["memory"] for rank in measured), strict=True)]
        figures[f"{name}, export, {way}"] = median_of(seconds, "s")
        figures[f"{name}, export, {way}, memory of a rank"] = median_of(memory, "GB")
    return figures


def measure_loading(model: Path, folder: Path) -> None:
    """The work of one rank: load the model into partitions, from storage and not from the kernel's cache."""
    job = make_stage_job(folder, model, folder, (0.0, 1.0))
    if dist.get_rank() == 0:
        folder.mkdir()
        _forget(model)
    dist.barrier()
    with _usage() as used:
        partitioned = HfDeepSpeedConfig(
            deepspeed_config(job, WeightSizes.expected(model, job.precision), dist.get_world_size())
        )
        load_partitioned(job)
    del partitioned
    (folder / f"load-{dist.get_rank()}.json").write_text(json.dumps(used))


def measure_exports(model: Path, folder: Path, times: int) -> None:
    """The work of one rank: export the model in turn to one file and to several."""
    job = make_stage_job(folder, model, folder, (0.0, 1.0))
    engine = ZeroEngine(job)
    size = _bytes_of(model)
    ways = {"one file": size, "side by side": size // (FILES - 1)}
    found: dict[str, dict[str, list[float]]] = {way: {"seconds": [], "memory": []} for way in ways}
    for _ in range(times):
        for way, max_file_bytes in ways.items():
            used = _export(engine, job, folder / "exported", max_file_bytes)
            for key, values in found[way].items():
                values.append(used[key])
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(found))


def _export(engine: ZeroEngine, job: StageJob, out: Path, max_file_bytes: int) -> dict[str, float]:
    return_freed_memory()
    os.sync()
    dist.barrier()
    with _usage() as used:
        export_model(engine, job, out, max_file_bytes=max_file_bytes)
    dist.barrier()
    if engine.rank == 0:
        shutil.rmtree(out)
    return used


@contextmanager
def _usage() -> Iterator[dict[str, float]]:
    """What the block takes: seconds, bytes of this process's memory at its peak, and bytes read from storage."""
    used, stop, before, read = {"memory": 0.0}, threading.Event(), _memory(), _read()

    def watch() -> None:
        while not stop.wait(0.005):
            used["memory"] = max(used["memory"], _memory() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    yield used
    used["seconds"] = time.perf_counter() - started
    stop.set()
    watcher.join()
    used["read"] = _read() - read


def _memory() -> int:
    """Bytes of this process's memory that hold no file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _read() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def _bytes_of(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def _forget(model: Path) -> None:
    """Have the kernel read the files from storage the next time."""
    for file in model.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
