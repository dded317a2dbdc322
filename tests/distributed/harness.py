"""Runs a stage on plain processes with gloo, without Ray: seconds instead of a cluster start per case."""

import json
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, set_seed

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.building.task import Encoding
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.training.checkpoint import CheckpointKeeper, Snapshot
from sftkey_dist.training.engine.factory import join_process_group
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.loop import train_stage
from sftkey_dist.training.workers.threads import limit_threads

PRELOADED = ["tests.distributed.harness", "sftkey_dist.training.loop", "tests.distributed.preloaded"]
"""What the server that processes are forked from imports: see tests/distributed/preloaded.py."""


class StoppingCheckpoints(CheckpointKeeper):
    """Ends the stage, as a fault would, when so many steps are in a checkpoint."""

    stop_after_steps: int | None = None

    def save(self, snapshot: Snapshot) -> None:
        super().save(snapshot)
        if snapshot.steps_done == self.stop_after_steps:
            self.wait()
            dist.barrier()
            raise KeyboardInterrupt


def run_ranks(world_size: int, work: Callable[..., Any], *arguments: Any) -> None:
    """Call ``work(*arguments)`` on every rank of a fresh gloo process group; any rank's exception is raised."""
    # Ranks are forked from a server that has imported what they need: 7 s less for each start.
    mp.set_forkserver_preload(PRELOADED)
    mp.start_processes(
        run_as_rank,
        args=(world_size, free_port(), dict(os.environ), work, arguments),
        nprocs=world_size,
        start_method="forkserver",
    )


def train(jobs: Sequence[StageJob], stop_after_steps: int | None = None) -> None:
    """The work of one rank: train stages one after another, or the part of each up to a checkpoint."""
    for job in jobs:
        try:
            train_stage(job, checkpoints_of(job, stop_after_steps))
        except KeyboardInterrupt:
            assert stop_after_steps is not None


def checkpoints_of(job: StageJob, stop_after_steps: int | None = None, attempt: str = "test") -> CheckpointKeeper:
    """This rank's side of them."""
    keeper = StoppingCheckpoints.of_stage(job, rank=dist.get_rank(), world_size=dist.get_world_size(), attempt=attempt)
    keeper.stop_after_steps = stop_after_steps
    return keeper


def make_store(store_dir: Path, contract: ResponseContract, model_dir: Path) -> EncodedStore:
    train_source, test_source = (SourceConfig(adapter="decision_memos", split=s, limit=60) for s in ("train", "test"))
    data = DataConfig(train=train_source, test=test_source, store_dir=store_dir, max_length_tokens=512)
    return prepare_store("train", data, Encoding(Form.TAGGED, contract, PromptConfig(), 512, model_dir, False))


def make_weighted_store(folder: Path, contract: ResponseContract, model_dir: Path) -> EncodedStore:
    """A store whose rows weigh a half, one and two."""
    rows = [
        {"prompt": memo.prompt, **memo.values, "rating": (0.5, 1, "2.0")[number % 3]}
        for number, memo in enumerate(generate_memos("train", 60, 0))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(adapter="records", path=str(folder / "rows.jsonl"), loss_weight_column="rating")
    test = SourceConfig(adapter="decision_memos", split="test", limit=60)
    data = DataConfig(train=source, test=test, store_dir=folder, max_length_tokens=512)
    return prepare_store("train", data, Encoding(Form.TAGGED, contract, PromptConfig(), 512, model_dir, False))


def make_model(folder: Path, config: PreTrainedConfig, tokenizer_dir: Path, seed: int = 0) -> Path:
    """A model with random weights and the tokenizer of another one."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config.vocab_size = len(tokenizer)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    set_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def metrics(job: StageJob) -> list[dict]:
    return [json.loads(line) for line in (job.stage_dir / "metrics.jsonl").read_text().splitlines()]


def weights_of(model_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(model_dir / "model.safetensors")


def share_of_update_apart(one: Path, other: Path, start: Path) -> float:
    """How far two model folders lie apart, as a share of how far the first lies from a third."""
    models = [weights_of(folder) for folder in (one, other, start)]
    first, second, before = (torch.cat([model[name].float().flatten() for name in models[0]]) for model in models)
    return float((second - first).norm() / (first - before).norm())


def join_as_rank(rank: int, world_size: int, port: int, accelerator: str = "cpu") -> None:
    """The environment that a launcher gives a rank; accelerators are shared by all ranks of this machine."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank if accelerator == "cpu" else 0),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": accelerator,
    }


def run_as_rank(
    rank: int,
    world_size: int,
    port: int,
    environment: dict[str, str],
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(environment)  # the server that ranks are forked from has the one of its first test
    join_as_rank(rank, world_size, port)
    limit_threads(1)
    dist.init_process_group("gloo")
    join_process_group()
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        raise
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
