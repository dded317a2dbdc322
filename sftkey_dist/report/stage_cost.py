"""What a stage of a strategy cost, how its loss fell, and what it changed in the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sftkey_dist.contract import END_OF_TURN, PROMPT, ResponseContract
from sftkey_dist.report.loss_curve import LossCurve, read_loss_curve
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.kinds import absent_with
from sftkey_dist.run_dir.artifacts.run import SETTINGS, StageEntry
from sftkey_dist.run_dir.artifacts.training import GuardSummary, SampleYield, read_summary


@dataclass(frozen=True)
class StageCost:
    """The cost of a stage, and how much of its update is in the stored weights.

    Attributes:
        name: of the stage.
        path: of its folder in the run.
        steps: optimizer steps.
        train_seconds: of training.
        tokens: trained on.
        loss_tokens: of them, with a loss.
        world_size: ranks.
        trains: what of a response the stage trains, in words.
        shared_with: the strategy in whose row its cost is counted, when that is another one.
        changed_share: of the stored weights, those that the stage changed; None where it was not recorded.
        surviving_share: of its update, what is left after rounding to the stored precision; None likewise.
        own_responses: yield of the responses that it is trained on; None where these are the references'.
        guard: which model its guard kept; None without a guard.
        weights: digest of the files with the exported weights; None where their digests were not recorded.
        losses: of the segments, in the course of the stage; None where they were not measured.
    """

    name: str
    path: str
    steps: int
    train_seconds: float
    tokens: int
    loss_tokens: int
    world_size: int
    trains: tuple[str, ...]
    shared_with: str | None
    changed_share: float | None = None
    surviving_share: float | None = None
    own_responses: SampleYield | None = field(default=None, metadata=absent_with("own_responses"))
    guard: GuardSummary | None = field(default=None, metadata=absent_with("guard"))
    weights: str | None = field(default=None, metadata=absent_with("weights"))
    losses: LossCurve | None = field(default=None, metadata=absent_with("losses"))

    @property
    def is_unchanged(self) -> bool:
        """Whether the stage handed on the model that it began with."""
        return self.changed_share == 0 or (self.guard is not None and self.guard.kept_the_start)


def read_stage_cost(run: RunDir, stage: StageEntry) -> StageCost:
    """The cost of a finished stage.

    Raises:
        DataError: the summary or the metrics of the stage are damaged.
    """
    directory = StageDir(run.path / stage.path)
    summary = read_summary(directory)
    rounding = summary.rounding
    return StageCost(
        name=stage.name,
        path=stage.path,
        shared_with=stage.shared_with,
        steps=summary.steps,
        train_seconds=summary.train_seconds,
        tokens=summary.tokens,
        loss_tokens=summary.loss_tokens,
        world_size=summary.world_size,
        changed_share=rounding.num_changed / rounding.num_weights if rounding and rounding.num_weights else None,
        surviving_share=rounding.surviving_share if rounding else None,
        own_responses=summary.own_responses,
        guard=summary.guard,
        weights=summary.weights_digest,
        losses=read_loss_curve(directory),
        trains=_trained(SETTINGS.read(run.config).contract, summary.weights),
    )


def weights_by_name(contract: ResponseContract, weights: Sequence[float]) -> dict[str, float]:
    """The loss weights of a stage by `ResponseContract.segment_names`."""
    return dict(zip(contract.segment_names, weights, strict=True))


def _trained(contract: ResponseContract, weights: Sequence[float]) -> tuple[str, ...]:
    """The segments with a loss, and what stands between and after them."""
    loss_of = weights_by_name(contract, weights)
    marks = any(loss > 0 for name, loss in loss_of.items() if name.endswith((".open", ".close")))
    others = {"marks": marks, "end of turn": loss_of[END_OF_TURN] > 0, "prompt": loss_of[PROMPT] > 0}
    texts = (segment.name for segment in contract.segments if loss_of[segment.name] > 0)
    return (*texts, *(words for words, is_trained in others.items() if is_trained))
