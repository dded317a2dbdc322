"""Preparation at scale: rows per second and memory, beside ``datasets.map`` tokenising the same text.

The peer gets its text ready-made, prompt and response already written; it tokenises and stores, no more. Ours reads
the rows, writes prompt and response, tokenises piece by piece, checks that every piece is reproduced, counts segments
and stores. Both use as many processes as there are cores.

``--scaling`` compares 1, 2 and 4 workers of this machine and of a Ray cluster instead, in turn.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.model import EmbeddedModelConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.building.task import Encoding
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.prepare import Runner, prepare_store
from sftkey_dist.models.load import load_tokenizer
from tests.benchmarks.figures import Figure, alternate, arguments, console, median_of, peak_memory, publish, timed

CONTRACT, PROMPT = ResponseContract(), PromptConfig()
DISTINCT_MEMOS = 5_000


def write_rows(folder: Path, model: Path, rows: int) -> None:
    """``rows.jsonl`` for us and ``text.jsonl``, the finished text, for the peer."""
    memos = list(generate_memos("train", DISTINCT_MEMOS, seed=0))
    prompts = PromptEncoder(load_tokenizer(model), PROMPT)
    with (folder / "rows.jsonl").open("w") as raw, (folder / "text.jsonl").open("w") as text:
        for i in range(rows):
            memo = memos[i % DISTINCT_MEMOS]
            prompt = f"Case {i}. {memo.prompt}"
            raw.write(json.dumps({"prompt": prompt, **memo.values}) + "\n")
            response = "".join(piece.text for piece in CONTRACT.render(memo.values, Form.TAGGED))
            text.write(json.dumps({"text": prompts.text(Example("", prompt, {})) + response}) + "\n")


def prepare_ours(folder: Path, model: Path, workers: int | None = None, runner: Runner | None = None) -> None:
    data = DataConfig(
        train=SourceConfig(adapter="records", path=str(folder / "rows.jsonl")),
        test=SourceConfig(adapter="decision_memos", split="test", limit=1),
        store_dir=folder / "store",
        num_workers=workers,
    )
    prepare_store("train", data, Encoding(Form.TAGGED, CONTRACT, PROMPT, 1024, model, False), runner)


def prepare_on_ray(folder: Path, model: Path, workers: int | None) -> None:
    """The tasks of Ray Data on a cluster with so many CPUs. Its start is not measured."""
    import ray  # noqa: PLC0415 (only this side pays for it)

    from sftkey_dist.data.building.on_ray import run_on_ray  # noqa: PLC0415

    settings = {"include_dashboard": False, "log_to_driver": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address="local", num_cpus=workers, object_store_memory=256 * 2**20, **settings)
    note(folder, measured(lambda: prepare_ours(folder, model, runner=run_on_ray)))


def prepare_peer(folder: Path, model: Path) -> None:
    import datasets  # noqa: PLC0415 (only the peer's process pays for it)

    tokenizer = load_tokenizer(model)
    rows = datasets.load_dataset("json", data_files=str(folder / "text.jsonl"), cache_dir=str(folder / "hf"))["train"]
    taken = measured(
        lambda: rows.map(
            lambda batch: {"input_ids": tokenizer(batch["text"], return_attention_mask=False)["input_ids"]},
            batched=True,
            num_proc=len(os.sched_getaffinity(0)),
            remove_columns=["text"],
        )
    )
    note(folder, taken)


SIDES: Mapping[str, Callable[[Path, Path, int | None], None]] = {
    "ours": lambda folder, model, workers: note(folder, measured(lambda: prepare_ours(folder, model, workers))),
    "peer": lambda folder, model, workers: prepare_peer(folder, model),
    "ray": prepare_on_ray,
}


@dataclass(frozen=True)
class Taken:
    """What a side has taken, without its start: seconds, and processor seconds of all its processes."""

    seconds: float
    processor_seconds: float


def measured(work: Callable[[], object]) -> Taken:
    before = processor_seconds()
    seconds = timed(work)
    return Taken(seconds, processor_seconds() - before)


def processor_seconds() -> float:
    """Of this process, of those below it, and of those below it that have ended."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (this, *this.children(recursive=True)))


def note(folder: Path, taken: Taken) -> None:
    (folder / "taken.json").write_text(json.dumps(asdict(taken)))


def run(side: str, folder: Path, model: Path, workers: int | None = None) -> Taken:
    """Run a side in a process of its own."""
    for leftover in ("store", "hf"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    command = [sys.executable, "-m", "tests.benchmarks.prepare", "--side", side, "--folder", str(folder)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    command += ["--model", str(model), *(["--workers", str(workers)] if workers else [])]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return Taken(**json.loads((folder / "taken.json").read_text()))


def measure(folder: Path, model: Path, pairs: int, pair_rows: int, rows: int) -> dict[str, Figure]:
    write_rows(folder, model, pair_rows)
    ours, theirs = alternate(
        lambda: timed(lambda: run("ours", folder, model)), lambda: run("peer", folder, model).seconds, pairs
    )
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    write_rows(folder, model, rows)
    with peak_memory() as peak:
        seconds = timed(lambda: run("ours", folder, model))
        bytes_at_peak = peak()
    return {
        "ours / datasets.map": median_of(
            ratios, "x", "<= 1.3", f"{pair_rows:,} rows; ours with start-up and reading, the peer's map alone"
        ),
        "ours": median_of([pair_rows / s for s in ours], "rows/s", against=f"{pair_rows:,} rows"),
        "datasets.map": median_of([pair_rows / s for s in theirs], "rows/s", against=f"{pair_rows:,} rows"),
        "ours, whole set": Figure(rows / seconds, "rows/s", against=f"{rows:,} rows"),
        "peak memory": Figure(bytes_at_peak / 2**30, "GiB", "<= 2", against=f"{rows:,} rows, all processes, PSS"),
    }


def scaling(folder: Path, model: Path, rounds: int, rows: int) -> dict[str, Figure]:
    """Rows by second and by processor second, place and number of workers, all of them in each round."""
    write_rows(folder, model, rows)
    places = {"this machine": "ours", "Ray Data": "ray"}
    measurements = defaultdict[str, list[Taken]](list)
    for _, workers, place in itertools.product(range(rounds), (1, 2, 4), places):
        measurements[f"{place}, {workers} workers"].append(run(places[place], folder, model, workers))
    against = f"{rows:,} rows, {rounds} rounds, without start-up of the command and of Ray"
    figures = {}
    for name, all_taken in measurements.items():
        figures[name] = median_of([rows / taken.seconds for taken in all_taken], "rows/s", against=against)
        a_core = [rows / taken.processor_seconds for taken in all_taken]
        figures[f"{name}, a processor"] = median_of(a_core, "rows/s", against="by the processor time of all processes")
    return figures


def main() -> None:
    def options(parser) -> None:
        parser.add_argument("--model", type=Path, help="folder with the tokenizer; default: a small one, made here")
        parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "sftkey-benchmark-prepare")
        parser.add_argument("--side", choices=list(SIDES), help="run one side once, in this process")
        parser.add_argument("--workers", type=int, help="of the side; default: the number of cores")
        parser.add_argument("--rounds", type=int, default=3, help="of --scaling")
        parser.add_argument("--scaling", action="store_true", help="compare numbers of workers, here and on Ray")

    args = arguments(__doc__, options)
    if args.side:
        SIDES[args.side](args.folder, args.model, args.workers)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    model = args.model or args.folder / "model"
    if not model.is_dir():
        texts = [memo.prompt + memo.values["reasoning"] for memo in generate_memos("train", DISTINCT_MEMOS, seed=0)]
        from sftkey_dist.models.embedded import make_embedded_model  # noqa: PLC0415 (imports torch)

        make_embedded_model(model, EmbeddedModelConfig(vocab_size=8192), texts, seed=0)
    console.print(f"tokenizer: {len(load_tokenizer(model)):,} tokens")
    if args.scaling:
        shard_rows = DataConfig.model_fields["shard_rows"].default
        figures = scaling(args.folder, model, args.rounds, 4 * shard_rows)  # as many shards for each worker
    else:
        sizes = (1, 20_000, 40_000) if args.quick else (5, 200_000, 1_000_000)
        figures = measure(args.folder, model, *sizes)
    publish("prepare", figures, args.json)
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
