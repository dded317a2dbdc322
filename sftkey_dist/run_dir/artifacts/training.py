"""What a stage writes: journals of its steps and events, rounding.json, heartbeats and stage.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sftkey_dist.digests import FileNote
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile, Measured, absent_with
from sftkey_dist.run_dir.artifacts.run import PathInRun
from sftkey_dist.sampler.stats import BalanceStats

_TRAINED_AGAIN = "restore it from a copy, or remove its folder: the same command then trains the stage again"


@dataclass(frozen=True)
class SegmentMetrics:
    """A segment's tokens in a step or a validation.

    Attributes:
        nll: mean, in nats per token.
        token_accuracy: share of tokens that are the most likely ones.
        tokens: that were observed.
    """

    nll: Measured
    token_accuracy: Measured
    tokens: int


@dataclass(frozen=True)
class StepMetrics:
    """A line of metrics.jsonl; the same bytes whenever the same stage is run.

    Attributes:
        step: from 0.
        epoch: from 0.
        loss: weighted mean over the step's tokens, in nats.
        learning_rate: of the step.
        grad_norm: before clipping.
        tokens: of the step, on all ranks.
        loss_tokens: of them, with a loss.
        balance: how level the step is.
        segments: by name; empty in steps that do not measure them.
    """

    step: int
    epoch: int
    loss: Measured
    learning_rate: float
    grad_norm: Measured
    tokens: int
    loss_tokens: int
    balance: BalanceStats
    segments: dict[str, SegmentMetrics]


@dataclass(frozen=True)
class CollectiveTimes:
    """Of a micro-batch that was watched.

    Attributes:
        collective_seconds: in which a collective ran, beside computation or not.
        watched_seconds: all of them.
        watch_cost_seconds: what watching added to the step.
    """

    collective_seconds: float
    watched_seconds: float
    watch_cost_seconds: float


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """A line of timings.jsonl.

    Attributes:
        step: as in metrics.jsonl.
        seconds: of the step.
        tokens_per_second: without padding, all ranks together.
        loss_tokens_per_second: likewise.
        model_tflops_per_second: likewise.
        mfu: model FLOP utilisation; None where the device's peak is not known.
        collective_seconds: see `CollectiveTimes`; None in steps that are not watched.
        watched_seconds: likewise.
        watch_cost_seconds: likewise.
        phase_seconds: of the step, and of what followed it.
        world_size: ranks.
        peak_memory_gib: of rank 0.
    """

    step: int
    seconds: float
    tokens_per_second: float
    loss_tokens_per_second: float
    model_tflops_per_second: float
    mfu: float | None = field(default=None, metadata=absent_with("mfu"))
    collective_seconds: float | None = field(default=None, metadata=absent_with("collective_seconds"))
    watched_seconds: float | None = field(default=None, metadata=absent_with("watched_seconds"))
    watch_cost_seconds: float | None = field(default=None, metadata=absent_with("watch_cost_seconds"))
    phase_seconds: dict[str, float]
    world_size: int
    peak_memory_gib: float


@dataclass(frozen=True)
class HeldOutMetrics:
    """The stage's loss and every segment's metrics on held-out examples."""

    loss: Measured
    segments: dict[str, SegmentMetrics]


@dataclass(frozen=True, kw_only=True)
class GuardScores:
    """What the guard scored.

    Attributes:
        n: outputs, or examples.
        accuracy: of key segments; nan where nothing was judged.
        format: share that keeps the contract.
        unjudged: outputs without a verdict; None where nothing was generated.
        truncated: outputs cut off; likewise.
        score: what models are ranked by, unjudged outputs counted as wrong.
        signal: ``teacher_forced``; None where it is generation.
    """

    n: int
    accuracy: Measured
    format: Measured
    unjudged: int | None = field(default=None, metadata=absent_with("unjudged"))
    truncated: int | None = field(default=None, metadata=absent_with("truncated"))
    score: Measured
    signal: str | None = field(default=None, metadata=absent_with("signal"))


@dataclass(frozen=True)
class Observation:
    """A line of validation.jsonl: what was measured after so many steps."""

    step: int
    validation: HeldOutMetrics | None = field(default=None, metadata=absent_with("validation"))
    guard: GuardScores | None = field(default=None, metadata=absent_with("guard"))


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl: a name for programs and a message for people."""

    event: str
    message: str


@dataclass(frozen=True)
class Beat:
    """A heartbeat: what a rank is at, and its process."""

    step: int
    phase: str
    pid: int


class Rounding(BaseModel):
    """What a stage changed, in its masters and in the weights that are stored.

    Attributes:
        precision: of the stored weights.
        num_weights: that were compared with the start of the stage.
        num_changed: of those, stored weights that differ.
        surviving_share: of the masters' update, its projection onto itself after rounding: 1 where nothing is lost.
            The gain of a small update is proportional to it. None where the masters did not move.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: str
    num_weights: int = Field(ge=0)
    num_changed: int = Field(ge=0)
    surviving_share: float | None

    @classmethod
    def of_sums(cls, precision: str, sums: Sequence[float]) -> "Rounding":
        """Of the sums over ranks of `update_sums`, [4]."""
        num_weights, num_changed, moved, survived = sums
        share = survived / moved if moved > 0 else None
        return cls(
            precision=precision, num_weights=int(num_weights), num_changed=int(num_changed), surviving_share=share
        )


@dataclass(frozen=True)
class GuardSummary:
    """Which model the guard handed on.

    Attributes:
        kept_step: steps done when it was taken.
        kept_score: its score.
        first_score: at the start of the stage.
        last_score: at its end.
        evaluations: how often the guard scored.
    """

    kept_step: int
    kept_score: Measured
    first_score: Measured
    last_score: Measured
    evaluations: int


def _weights_of(inputs: Mapping[str, object]) -> list[float]:
    weights = inputs.get("weights")
    if not (isinstance(weights, list) and all(isinstance(weight, int | float) for weight in weights)):
        raise ValueError("weights must be a list of numbers")
    return weights


def _with_weights(inputs: Mapping[str, object]) -> Mapping[str, object]:
    _weights_of(inputs)
    return inputs


@dataclass(frozen=True)
class StageOrigin:
    """stage.json, as far as it says what the stage was made from."""

    inputs: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """stage.json: what a finished stage was and cost. What has a default was not noted by the first versions.

    Attributes:
        digest: of the stage.
        inputs: what the digest stands for.
        steps: optimizer steps.
        tokens: trained on.
        loss_tokens: of them, with a loss.
        train_seconds: of all steps.
        phase_seconds: by phase, longest first.
        collective_share: of the micro-batches in which it was measured, the share of time in which a collective ran.
        peak_memory_gib: of rank 0.
        wall_seconds: with loading, validation and writing.
        world_size: ranks.
        events: messages.
        final_segments: of the last step that was trained.
        rounding: what the stage changed in stored weights.
        gain: by how much its loss on held-out examples fell, in nats.
        guard: which model was handed on; None without a guard.
        model_files: size and digest of the model's files.
    """

    digest: str = ""
    inputs: Annotated[Mapping[str, object], AfterValidator(_with_weights)]
    steps: int
    tokens: int
    loss_tokens: int
    train_seconds: float
    phase_seconds: dict[str, float] = field(default_factory=dict)
    collective_share: float | None = None
    peak_memory_gib: float = 0.0
    wall_seconds: float = 0.0
    world_size: int
    events: list[str] = field(default_factory=list)
    final_segments: dict[str, SegmentMetrics] = field(default_factory=dict)
    rounding: Rounding | None = None
    gain: float | None = None
    guard: GuardSummary | None = None
    model_files: dict[PathInRun, FileNote] = field(default_factory=dict)

    @property
    def weights(self) -> list[float]:
        """Loss weight of each segment."""
        return _weights_of(self.inputs)


METRICS, TIMINGS, OBSERVATIONS, EVENTS = Journal(StepMetrics), Journal(StepTiming), Journal(Observation), Journal(Event)
ROUNDING = JsonFile(Rounding, _TRAINED_AGAIN)
BEAT = JsonFile(Beat)
SUMMARY, ORIGIN = JsonFile(StageSummary, _TRAINED_AGAIN), JsonFile(StageOrigin, _TRAINED_AGAIN)


def read_summary(stage: StageDir) -> StageSummary:
    """What a finished stage was and cost.

    Raises:
        DataError: the file is damaged.
    """
    return SUMMARY.read(stage.summary)
