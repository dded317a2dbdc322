"""The files of a stage: journals of its steps and events, rounding.json and stage.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sftkey_dist.digests import FileNote, digest_json
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile, Measured, absent_with
from sftkey_dist.run_dir.artifacts.run import PathInRun
from sftkey_dist.sampler.stats import BalanceStats

_TRAINED_AGAIN = "restore it from a copy, or remove its folder: the same command then trains the stage again"


@dataclass(frozen=True)
class SegmentMetrics:
    """Metrics of a segment's tokens in a step or a validation.

    Attributes:
        nll: mean negative log-likelihood, in nats per token.
        token_accuracy: share of tokens to which the model gives the highest probability.
        tokens: number of tokens that were measured.
    """

    nll: Measured
    token_accuracy: Measured
    tokens: int


@dataclass(frozen=True)
class SegmentGradients:
    """The gradients of segments in a step.

    Attributes:
        norms: norm of each segment's gradient, by its name.
        cosines: cosine of the gradients of two segments, as in ``reasoning and answer``.
    """

    norms: dict[str, Measured]
    cosines: dict[str, Measured]


@dataclass(frozen=True)
class Projection:
    """What became of the gradients of the segments' parts of the loss, which a step projects on each other.

    Attributes:
        conflicts: number of pairs of segments whose gradients have an inner product below 0.
        gradients: the gradients before they are projected.
    """

    conflicts: int
    gradients: SegmentGradients


@dataclass(frozen=True)
class StepMetrics:
    """A line of metrics.jsonl. Running the same stage again gives the same bytes.

    Attributes:
        step: number of the step, from 0.
        epoch: number of the epoch, from 0.
        loss: what is minimised: the weighted mean over the step's tokens in nats, and what an anchor and the loss of
            routers add.
        learning_rate: learning rate of the step.
        grad_norm: norm of the gradient before clipping.
        tokens: number of tokens in the step, on all ranks.
        loss_tokens: number of tokens with a loss, on all ranks.
        balance: load balance of the step.
        segments: metrics by segment name; empty in steps that do not measure them.
        divergence: mean KL divergence of the anchored tokens from the start of the stage, in nats; None without anchor.
        router_loss: loss that balances routers, before its factor: 1 per chosen expert if they are perfectly balanced;
            None where it is not part of the loss.
        gradients: gradients of the segments' mean nll, compared before the step; None in steps that do not measure
            them.
        projection: how the gradients of segments were projected on each other; None where none were.
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
    divergence: Measured | None = field(default=None, metadata=absent_with("divergence"))
    router_loss: Measured | None = field(default=None, metadata=absent_with("router_loss"))
    gradients: SegmentGradients | None = field(default=None, metadata=absent_with("gradients"))
    projection: Projection | None = field(default=None, metadata=absent_with("projection"))


@dataclass(frozen=True)
class CollectiveTimes:
    """Time of collectives in a micro-batch that was profiled.

    Attributes:
        collective_seconds: time during which a collective ran, overlapped with computation or not.
        watched_seconds: duration of the profiled micro-batch.
        watch_cost_seconds: time that profiling added to the step.
    """

    collective_seconds: float
    watched_seconds: float
    watch_cost_seconds: float


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """A line of timings.jsonl.

    Attributes:
        step: number of the step, as in metrics.jsonl.
        seconds: duration of the step.
        tokens_per_second: throughput of all ranks together, without padding.
        loss_tokens_per_second: the same for tokens with a loss.
        model_tflops_per_second: model TFLOP/s of all ranks together, without padding.
        mfu: model FLOP utilisation; None if the peak of the device is unknown.
        collective_seconds: see `CollectiveTimes`; None in steps that are not profiled.
        watched_seconds: see `CollectiveTimes`.
        watch_cost_seconds: see `CollectiveTimes`.
        phase_seconds: seconds by phase, of the step and of what followed it.
        world_size: number of ranks.
        peak_memory_gib: peak memory of rank 0.
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
    """The loss of the stage and the metrics of every segment on held-out examples."""

    loss: Measured
    segments: dict[str, SegmentMetrics]


@dataclass(frozen=True, kw_only=True)
class GuardScores:
    """The guard's scores of a model.

    Attributes:
        n: number of outputs, or of examples.
        accuracy: accuracy of the key segments; nan if nothing was judged.
        format: share of outputs that keep the contract.
        unjudged: number of outputs without a verdict; None if nothing was generated.
        truncated: number of outputs that were cut off; None if nothing was generated.
        score: score by which models are ranked, with unjudged outputs counted as wrong.
        signal: ``teacher_forced``; None for generation.
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
    """A line of validation.jsonl: what was measured after ``step`` optimizer steps."""

    step: int
    validation: HeldOutMetrics | None = field(default=None, metadata=absent_with("validation"))
    guard: GuardScores | None = field(default=None, metadata=absent_with("guard"))


@dataclass(frozen=True)
class Interpolation:
    """A line of interpolations.jsonl: what was measured of the model with a ``part`` of the stage's update."""

    part: float
    validation: HeldOutMetrics
    guard: GuardScores


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl: a name for programs and a message for users."""

    event: str
    message: str


class Rounding(BaseModel):
    """What a stage changed in its master weights and in the stored weights.

    Attributes:
        precision: precision of the stored weights.
        num_weights: number of weights that were compared with the start of the stage.
        num_changed: number of stored weights that differ.
        surviving_share: projection of the rounded update onto the update of the master weights: 1 if nothing is lost.
            The gain of a small update is proportional to it. None if the master weights did not change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: str
    num_weights: int = Field(ge=0)
    num_changed: int = Field(ge=0)
    surviving_share: float | None

    @classmethod
    def of_sums(cls, precision: str, sums: Sequence[float]) -> "Rounding":
        """Compute it from the sums of `update_sums` over all ranks, [4]."""
        num_weights, num_changed, moved, survived = sums
        share = survived / moved if moved > 0 else None
        return cls(
            precision=precision, num_weights=int(num_weights), num_changed=int(num_changed), surviving_share=share
        )


@dataclass(frozen=True)
class SampledRow:
    """A line of rows.jsonl: what became of the sampled responses to a training row.

    Attributes:
        data_set: number and name of its source.
        id: its origin.
        outcomes: of each sample, `accepted` or why it was not.
        trained: what the stage trains: number of the sample, from 0; None for the reference, or for no response.
        tokens: number of tokens of all samples.
    """

    data_set: str
    id: str
    outcomes: tuple[str, ...]
    trained: int | None
    tokens: int


@dataclass(frozen=True)
class SampleYield:
    """yield.json: how many of the sampled responses to the training rows are accepted.

    Attributes:
        rows: number of rows that responses were sampled for.
        accepted_rows: number of these rows with an accepted response.
        otherwise: what became of the others: `reference` or `skip`.
        samples: number of samples.
        outcomes: number of samples by outcome: `accepted`, or why they were not.
        tokens: number of tokens that were generated.
    """

    rows: int
    accepted_rows: int
    otherwise: str
    samples: int
    outcomes: dict[str, int]
    tokens: int

    @property
    def share(self) -> float:
        """Share of the rows with an accepted response."""
        return self.accepted_rows / max(self.rows, 1)


@dataclass(frozen=True)
class GuardSummary:
    """Which model the guard chose.

    Attributes:
        kept_step: number of optimizer steps after which it was saved.
        kept_score: its score.
        first_score: score at the start of the stage.
        last_score: score at the end of the stage.
        evaluations: number of the guard's evaluations between steps.
        kept_part: part of the stage's update that it has; None for all of it.
    """

    kept_step: int
    kept_score: Measured
    first_score: Measured
    last_score: Measured
    evaluations: int
    kept_part: float | None = field(default=None, metadata=absent_with("kept_part"))

    @property
    def kept_the_start(self) -> bool:
        """Whether it kept the model that the stage began with."""
        return self.kept_step == 0 and self.kept_part is None

    @property
    def kept(self) -> str:
        """Which model it kept, in two or three words."""
        return f"step {self.kept_step:,}" if self.kept_part is None else f"{self.kept_part:g} of the update"

    def in_words(self, steps: int) -> str:
        """Which model of a stage of so many steps it kept, and the scores, to follow "the guard of the stage"."""
        which = "that the stage began with, because training did not raise its score"
        if self.kept_part is not None:
            which = f"with {self.kept_part:g} of the stage's update"
        elif self.kept_step:
            which = f"after step {self.kept_step:,} of {steps:,}"
        return (
            f"kept the model {which}: held-out score {self.first_score:.3f} at the start, {self.kept_score:.3f} kept, "
            f"{self.last_score:.3f} at the end"
        )


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
    """stage.json, restricted to the inputs of the stage."""

    inputs: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """stage.json: summary of a finished stage. Fields with a default were not recorded by the first versions.

    Attributes:
        digest: digest of the stage.
        inputs: what the digest is computed from.
        steps: number of optimizer steps.
        tokens: number of tokens that were trained on.
        loss_tokens: number of these tokens with a loss.
        train_seconds: duration of all steps.
        phase_seconds: seconds by phase, longest first.
        collective_share: share of time in which a collective ran, over the micro-batches that were profiled.
        peak_memory_gib: peak memory of rank 0.
        wall_seconds: duration including sampling its data, loading, validation and writing.
        world_size: number of ranks.
        events: messages of the events.
        final_segments: segment metrics of the last step.
        rounding: what the stage changed in the stored weights.
        gain: decrease of the loss on held-out examples, in nats.
        guard: which model was handed on; None without a guard.
        model_files: size and digest of each file of the model.
        own_responses: yield of the responses that were sampled for the stage; None if it trains on the references.
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
    own_responses: SampleYield | None = field(default=None, metadata=absent_with("own_responses"))

    @property
    def weights_digest(self) -> str | None:
        """Digest of the model's weights; None if the summary lacks its files."""
        digests = {name: note.sha256 for name, note in self.model_files.items() if name.endswith(".safetensors")}
        return digest_json(digests) if digests else None

    @property
    def weights(self) -> list[float]:
        """Loss weight of each segment."""
        return _weights_of(self.inputs)


Measurement = TypeVar("Measurement", StepMetrics, StepTiming, Observation)
"""A record of a journal that has one for each step or some of them."""
METRICS, TIMINGS, OBSERVATIONS, EVENTS = Journal(StepMetrics), Journal(StepTiming), Journal(Observation), Journal(Event)
INTERPOLATIONS = Journal(Interpolation)
ROUNDING = JsonFile(Rounding, _TRAINED_AGAIN)
SAMPLED_ROWS, YIELD = Journal(SampledRow), JsonFile(SampleYield)
SUMMARY, ORIGIN = JsonFile(StageSummary, _TRAINED_AGAIN), JsonFile(StageOrigin, _TRAINED_AGAIN)


def read_summary(stage: StageDir) -> StageSummary:
    """The summary of a finished stage.

    Raises:
        DataError: the file is damaged.
    """
    return SUMMARY.read(stage.summary)
