"""A stage on a cluster: does it fit, how long does it take, what limits it, and what would help most."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sftkey_dist.capacity.hardware import GIB, Cluster
from sftkey_dist.capacity.memory import Memory, estimate_memory
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.capacity.speed import Rows, Seconds, step_seconds
from sftkey_dist.capacity.traffic import traffic_of
from sftkey_dist.config.training import TrainingConfig, ZeroConfig
from sftkey_dist.training.checkpoint import CHECKPOINT_BYTES

_MOST_NODES = 1024
_LEAN_GATHERED_GIB = 0.25
"""Enough to gather the next layers ahead in every precision (`training/engine.py`)."""


@dataclass(frozen=True)
class StageLoad:
    """What a stage has to do.

    Attributes:
        name: of strategy and stage.
        num_steps: optimizer steps.
        longest_example: tokens of the longest one; a row cannot be shorter.
        rows_for: the first steps' rows for a number of ranks and a token budget.
    """

    name: str
    num_steps: int
    longest_example: int
    rows_for: Callable[[int, int], Sequence[Rows]]


@dataclass(frozen=True)
class Estimate:
    """Of one stage.

    Attributes:
        memory: of the fullest rank.
        seconds: of a step.
        tokens_per_second: of all ranks together.
        stage_hours: of all steps.
        received_gib: that a rank receives in a step.
        checkpoint_gib: of all ranks together.
        checkpoint_seconds: to write it, beside training.
        cost: of the stage; None without a price.
        fits: whether the memory is there.
        limit: what takes the time, or that it does not fit.
    """

    memory: Memory
    seconds: Seconds
    tokens_per_second: float
    stage_hours: float
    received_gib: float
    checkpoint_gib: float
    checkpoint_seconds: float
    cost: float | None
    fits: bool
    limit: str


@dataclass(frozen=True)
class StageCapacity:
    """A stage on a cluster.

    Attributes:
        name: of strategy and stage.
        num_steps: optimizer steps.
        estimate: on the cluster that was asked about.
        smallest_nodes: nodes of the smallest cluster it fits on, of powers of two; None if there is none.
        help: the setting that would help most, and the estimate with it; None if none does.
    """

    name: str
    num_steps: int
    estimate: Estimate
    smallest_nodes: int | None
    help: tuple[str, Estimate] | None


def estimate(size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad) -> Estimate:
    """
    Args:
        size: of the model.
        training: how the stage runs.
        cluster: where.
        load: what there is to do.
    """
    steps = load.rows_for(cluster.ranks, training.micro_batch_tokens)
    row_tokens = max(int(rows.tokens.max()) for rows in steps)
    kept = max(int(rows.observed.max()) for rows in steps)
    memory = estimate_memory(size, training, cluster.accelerator, cluster.ranks, row_tokens, kept)
    seconds = step_seconds(size, training, cluster, steps)
    hours = seconds.total * load.num_steps / 3600
    tokens = sum(int(rows.tokens.sum()) for rows in steps) / len(steps)
    traffic = traffic_of(size, training, cluster)
    micro_batches = sum(rows.tokens.shape[1] for rows in steps) / len(steps)
    checkpoint = size.trained * CHECKPOINT_BYTES
    price = cluster.price_per_gpu_hour
    fits = memory.total_gib <= cluster.accelerator.memory_gib
    return Estimate(
        memory=memory,
        seconds=seconds,
        tokens_per_second=tokens / seconds.total,
        stage_hours=hours,
        received_gib=traffic.received_bytes(micro_batches) / GIB,
        checkpoint_gib=checkpoint / GIB,
        checkpoint_seconds=checkpoint / cluster.nodes / (cluster.storage_gb_per_second * 1e9),
        cost=None if price is None else hours * cluster.ranks * price,
        fits=fits,
        limit=_limit(seconds) if fits else "memory",
    )


def smallest_cluster(size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad) -> int | None:
    """Nodes of the smallest cluster of such nodes that the stage fits on; None if there is none."""
    nodes = 1
    while nodes <= _MOST_NODES:
        if estimate(size, training, replace(cluster, nodes=nodes), load).fits:
            return nodes
        nodes *= 2
    return None


def what_would_help(
    size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad, now: Estimate
) -> tuple[str, Estimate] | None:
    """The one setting whose change makes the stage fit, or else most faster than ``now``; None if none does by 2 %."""
    changed = [(text, estimate(size, other, cluster, load)) for text, other in _changes(training, load.longest_example)]
    fitting = [(text, other) for text, other in changed if other.fits]
    if not fitting:
        return None
    best = min(fitting, key=lambda item: item[1].seconds.total)
    return best if not now.fits or best[1].seconds.total < 0.98 * now.seconds.total else None


def _changes(training: TrainingConfig, longest_example: int) -> Iterator[tuple[str, TrainingConfig]]:
    """Settings that leave what is computed as it is.

    `zero.reduce_precision=bfloat16` halves gradients' traffic and is left out: it rounds their sum, which whoever
    trains has to want.
    """
    zero = training.zero
    flipped = not training.gradient_checkpointing
    yield (
        f"training.gradient_checkpointing={str(flipped).lower()}",
        training.model_copy(update={"gradient_checkpointing": flipped}),
    )
    for factor, tokens in (("double", 2 * training.micro_batch_tokens), ("half", training.micro_batch_tokens // 2)):
        if tokens >= longest_example:
            change = training.model_copy(update={"micro_batch_tokens": tokens})
            yield f"training.micro_batch_tokens={tokens} ({factor})", change
    if training.logit_chunk_positions is None:
        yield "training.logit_chunk_positions=1024", training.model_copy(update={"logit_chunk_positions": 1024})
    if zero.offload == "none":
        offloaded = ZeroConfig.model_validate(zero.model_dump() | {"offload": "cpu"})
        yield "training.zero.offload=cpu", training.model_copy(update={"zero": offloaded})
    if zero.max_gathered_gib > _LEAN_GATHERED_GIB:
        lean = zero.model_copy(update={"max_gathered_gib": _LEAN_GATHERED_GIB})
        yield f"training.zero.max_gathered_gib={_LEAN_GATHERED_GIB}", training.model_copy(update={"zero": lean})


def _limit(seconds: Seconds) -> str:
    """The largest part of a step."""
    parts = {
        "computation": seconds.balanced,
        "waiting for the slowest rank": seconds.compute - seconds.balanced,
        "communication": seconds.communication,
        "the optimizer": seconds.optimizer,
    }
    return max(parts, key=lambda name: parts[name])
