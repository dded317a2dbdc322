"""Estimates a stage on a cluster: whether it fits, how long it takes, what limits it, and what would help most."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from sftkey_dist.capacity.hardware import GIB, Cluster
from sftkey_dist.capacity.host import Export, estimate_export, host_memory
from sftkey_dist.capacity.memory import GuardCopy, Memory, estimate_memory, guard_memory
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.capacity.speed import Rows, Seconds, step_seconds
from sftkey_dist.capacity.traffic import exchanged, traffic_of
from sftkey_dist.config.training import TrainingConfig, ZeroConfig
from sftkey_dist.training.checkpoint import CHECKPOINT_BYTES

_POWERS_OF_TWO = tuple(1 << power for power in range(11))
_LEAN_GATHERED_GIB = 0.25
"""Enough for gathering the next layers ahead of their use (`training/engine/deepspeed_config.py`)."""


@dataclass(frozen=True)
class Fullest:
    """Upper bounds of what a packed row holds; each number is the maximum over all rows.

    Attributes:
        observed: positions with logits, in a step that measures every segment.
        rest_tokens: tokens that the backward pass covers.
        prefix_tokens: tokens through which no gradient passes.
    """

    observed: int
    rest_tokens: int
    prefix_tokens: int = 0

    @classmethod
    def of(cls, steps: Sequence[Rows]) -> "Fullest":
        """The maxima over the rows of these steps."""
        return cls(
            observed=max(int(rows.observed.max()) for rows in steps),
            rest_tokens=max(int((rows.tokens - rows.prefix_tokens).max()) for rows in steps),
            prefix_tokens=max(int(rows.prefix_tokens.max()) for rows in steps),
        )

    def part(self, parts: int) -> "Fullest":
        """What a rank holds at most, of so many that share each row; see `Rows.part`."""
        if parts == 1:
            return self
        tokens = -(-self.rest_tokens // parts)
        return Fullest(min(self.observed, tokens), tokens)


@dataclass(frozen=True)
class StageLoad:
    """The work of a stage.

    Attributes:
        name: names of the strategy and the stage.
        num_steps: number of optimizer steps.
        longest_example: tokens of the longest example; a row must have room for it.
        rows_for: returns the rows of the first steps for a number of data-parallel ranks and a token budget.
        fullest_for: returns the fullest rows of all steps for the same arguments; None if ``rows_for`` has all steps.
        guard: the copy of the model with which a guard generates; None without a guard.
        may_share_rows: whether the run's settings allow several ranks to compute a row together.
        may_recompute: whether they allow to recompute activations.
        least_row_tokens: token budget of a row that they allow at least.
        counts_routers: whether one more forward pass of each row counts what its routers choose, for their loss.
        passes: number of forward and backward passes over the rows of a step.
    """

    name: str
    num_steps: int
    longest_example: int
    rows_for: Callable[[int, int], Sequence[Rows]]
    fullest_for: Callable[[int, int], Fullest] | None = None
    guard: GuardCopy | None = None
    may_share_rows: bool = True
    may_recompute: bool = True
    least_row_tokens: int = 0
    counts_routers: bool = False
    passes: int = 1

    def fullest(self, ranks: int, micro_batch_tokens: int) -> Fullest:
        """The fullest rows of all steps, for a number of ranks and a token budget."""
        if self.fullest_for is None:
            return Fullest.of(self.rows_for(ranks, micro_batch_tokens))
        return self.fullest_for(ranks, micro_batch_tokens)


@dataclass(frozen=True)
class Estimate:
    """The estimate of one stage.

    Attributes:
        memory: memory of the fullest rank in the fullest step.
        seconds: seconds of a step, by part.
        tokens_per_second: tokens that all ranks together process in a second.
        stage_hours: hours of all steps.
        received_gib: GiB that a rank receives in a step.
        checkpoint_gib: size of a checkpoint, of all ranks together.
        checkpoint_seconds: seconds to write a checkpoint, while training continues.
        cost: cost of the stage; None without a price.
        fits: whether each rank has enough memory.
        limit: the largest part of a step, or "memory" if the stage does not fit.
        host: host memory of a node.
        export: what writing the model folder takes.
        guarding: memory of a rank while the guard generates; None without a guard.
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
    host: Memory
    export: Export
    guarding: Memory | None = None


@dataclass(frozen=True)
class StageCapacity:
    """The answers about a stage on a cluster.

    Attributes:
        name: names of the strategy and the stage.
        num_steps: number of optimizer steps.
        estimate: the estimate for the given cluster.
        smallest_nodes: number of nodes of the smallest cluster on which the stage fits, a power of two; None if there
            is none.
        help: the setting that would help most, and the estimate with it; None if no setting helps.
    """

    name: str
    num_steps: int
    estimate: Estimate
    smallest_nodes: int | None
    help: tuple[str, Estimate] | None


def estimate(size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad) -> Estimate:
    """Estimate one stage.

    Args:
        size: sizes of the model.
        training: settings of the training.
        cluster: the cluster.
        load: the work of the stage.
    """
    sharing = training.sequence_parallel_ranks
    data_ranks = cluster.ranks // sharing
    steps = load.rows_for(data_ranks, training.micro_batch_tokens)
    parts = [rows.part(sharing).repeated(load.passes) for rows in steps]
    fullest = load.fullest(data_ranks, training.micro_batch_tokens).part(sharing)
    memory = _memory(size, training, cluster, fullest)
    guarding = _guarding(size, training, cluster, load)
    extra = int(load.counts_routers)
    stops_prefix = any(rows.prefix_tokens.any() for rows in steps)
    traffic = traffic_of(size, training, cluster, forward_passes=1 + stops_prefix + extra)
    exchanges = [
        exchanged(size, training, cluster.accelerator, rows.tokens, extra_forward_passes=extra) for rows in parts
    ]
    seconds = step_seconds(size, training, cluster, parts, traffic, exchanges, extra_forward_passes=extra)
    hours = seconds.total * load.num_steps / 3600
    tokens = sum(int(rows.tokens.sum()) for rows in steps) / len(steps)
    export = estimate_export(size, training, cluster)
    micro_batches = sum(rows.tokens.shape[1] for rows in parts) / len(parts)
    checkpoint = size.trained * CHECKPOINT_BYTES
    price = cluster.price_per_gpu_hour
    fits = max(each.total_gib for each in (memory, guarding or memory)) <= cluster.accelerator.memory_gib
    return Estimate(
        memory=memory,
        seconds=seconds,
        tokens_per_second=tokens / seconds.total,
        stage_hours=hours,
        received_gib=(traffic.received_bytes(micro_batches) + mean(flow.received_bytes for flow in exchanges)) / GIB,
        checkpoint_gib=checkpoint / GIB,
        checkpoint_seconds=checkpoint / cluster.nodes / (cluster.storage_gb_per_second * 1e9),
        cost=None if price is None else hours * cluster.ranks * price,
        fits=fits,
        limit=_limit(seconds) if fits else "memory",
        host=host_memory(size, training, cluster, export, fullest.rest_tokens, load.passes),
        export=export,
        guarding=guarding,
    )


def smallest_cluster(size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad) -> int | None:
    """Number of nodes of the smallest cluster of these nodes on which the stage fits; None if there is none."""
    for nodes in _POWERS_OF_TWO:
        other = replace(cluster, nodes=nodes)
        if _may_fit(size, training, other) and estimate(size, training, other, load).fits:
            return nodes
    return None


def what_would_help(
    size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad, now: Estimate
) -> tuple[str, Estimate] | None:
    """The one change of a setting that makes the stage fit, or that makes it fastest.

    Returns:
        The setting and the estimate with it; None if no change makes a stage fit, or faster by at least 2 %.
    """
    changes = _changes(size, training, cluster, load)
    changed = [(text, estimate(size, other, cluster, load)) for text, other in changes]
    fitting = [(text, other) for text, other in changed if other.fits]
    if not fitting:
        return None
    best = min(fitting, key=lambda item: item[1].seconds.total)
    return best if not now.fits or best[1].seconds.total < 0.98 * now.seconds.total else None


def _changes(
    size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad
) -> Iterator[tuple[str, TrainingConfig]]:
    """Changes of settings that do not change the result.

    `zero.reduce_precision=bfloat16` halves the traffic of gradients, but it rounds their sum, so it is not proposed.
    """
    zero = training.zero
    flipped = not training.gradient_checkpointing
    if load.may_recompute and not training.offload_activations:
        yield (
            f"training.gradient_checkpointing={str(flipped).lower()}",
            training.model_copy(update={"gradient_checkpointing": flipped}),
        )
    for factor, tokens in (("double", 2 * training.micro_batch_tokens), ("half", training.micro_batch_tokens // 2)):
        if tokens >= max(load.longest_example, load.least_row_tokens):
            change = training.model_copy(update={"micro_batch_tokens": tokens})
            yield f"training.micro_batch_tokens={tokens} ({factor})", change
    sharing = 2 * training.sequence_parallel_ranks
    while load.may_share_rows and not (cluster.ranks % sharing or size.num_heads % sharing):
        change = training.model_copy(update={"sequence_parallel_ranks": sharing})
        yield f"training.sequence_parallel_ranks={sharing}", change
        sharing *= 2
    if training.logit_chunk_positions is None and not size.scales_logits:
        yield "training.logit_chunk_positions=1024", training.model_copy(update={"logit_chunk_positions": 1024})
    if training.gradient_checkpointing and not training.offload_activations:
        yield "training.offload_activations=true", training.model_copy(update={"offload_activations": True})
    if zero.offload == "none":
        offloaded = ZeroConfig.model_validate(zero.model_dump() | {"offload": "cpu"})
        yield "training.zero.offload=cpu", training.model_copy(update={"zero": offloaded})
    if zero.max_gathered_gib > _LEAN_GATHERED_GIB:
        lean = zero.model_copy(update={"max_gathered_gib": _LEAN_GATHERED_GIB})
        yield f"training.zero.max_gathered_gib={_LEAN_GATHERED_GIB}", training.model_copy(update={"zero": lean})


def _may_fit(size: ModelSize, training: TrainingConfig, cluster: Cluster) -> bool:
    """Whether groups of ranks divide all of them, and an empty row would fit: known before any step is planned."""
    if cluster.ranks % training.ranks_multiple:
        return False
    return _memory(size, training, cluster, Fullest(0, 0)).total_gib <= cluster.accelerator.memory_gib


def _memory(size: ModelSize, training: TrainingConfig, cluster: Cluster, rows: Fullest) -> Memory:
    return estimate_memory(
        size,
        training,
        cluster.accelerator,
        cluster.ranks,
        rows.rest_tokens,
        rows.observed,
        prefix_tokens=rows.prefix_tokens,
    )


def _guarding(size: ModelSize, training: TrainingConfig, cluster: Cluster, load: StageLoad) -> Memory | None:
    if load.guard is None:
        return None
    return guard_memory(size, training, cluster.accelerator, cluster.ranks, load.guard)


def _limit(seconds: Seconds) -> str:
    """The largest part of a step."""
    parts = {
        "computation": seconds.balanced,
        "waiting for the slowest rank": seconds.compute - seconds.balanced,
        "communication": seconds.communication,
        "the optimizer": seconds.optimizer,
    }
    return max(parts, key=lambda name: parts[name])
