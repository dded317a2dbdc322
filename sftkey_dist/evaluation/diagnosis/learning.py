"""What a strategy's training did: the learning curves of the stage that made its model, and stages that did nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from sftkey_dist.run_dir.artifacts.training import GuardScores, GuardSummary, HeldOutMetrics, StepMetrics

_SHARE_OF_CURVE = 0.1
_RISE_OF_NLL, _MIN_RISE = 1.25, 0.05


@dataclass(frozen=True)
class UselessStage:
    """A stage that handed on the model that it began with.

    Attributes:
        name: name of the stage.
        steps: number of its optimizer steps.
        guard: the scores because of which its guard kept the start; None if the stage changed no stored weight.
    """

    name: str
    steps: int
    guard: GuardSummary | None


@dataclass(frozen=True)
class StageCurves:
    """Metrics of the last stage of a strategy that changed the model, up to the model that it handed on.

    Attributes:
        name: name of the stage.
        continues: whether the stage continues from another.
        trained: segments with a positive loss weight.
        metrics: metrics of its steps; none if its model lies between its start and its end.
        guard: scores of its guard, in order, of which the last is that of its model; empty without a guard.
        has_trained_whole: whether this stage or one before it trained the whole response.
        useless: the stages after it.
        held_out: metrics on held-out examples, in order, of which the last are those of its model; empty without any.
    """

    name: str
    continues: bool
    trained: frozenset[str]
    metrics: Sequence[StepMetrics]
    guard: Sequence[GuardScores]
    has_trained_whole: bool
    useless: Sequence[UselessStage] = ()
    held_out: Sequence[HeldOutMetrics] = ()

    @property
    def trains_structure(self) -> bool:
        """Whether the stage trains what marks the segments."""
        return any(name.endswith(".open") for name in self.trained)

    @property
    def kept_best(self) -> bool:
        """Whether a guard kept the best of the stage's models."""
        return bool(self.guard) and self.guard[-1].score >= max(scored.score for scored in self.guard)

    def nll(self, segment: str, *, at_end: bool) -> float | None:
        """Mean nll of a segment in nats per token, over the first or last tenth of the steps that measured it."""
        seen = [m.segments[segment] for m in self.metrics if segment in m.segments]
        seen = [s for s in seen if s.tokens]
        if not seen:
            return None
        number = max(1, int(len(seen) * _SHARE_OF_CURVE))
        part = seen[-number:] if at_end else seen[:number]
        return sum(s.nll * s.tokens for s in part) / sum(s.tokens for s in part)

    def held_out_nll(self, segment: str) -> float | None:
        """The nll of a segment on held-out examples, in nats per token, of the model; None if it was not measured."""
        found = self.held_out[-1].segments.get(segment) if self.held_out else None
        return found.nll if found is not None and found.tokens else None

    def overfitted(self) -> dict[str, tuple[float, float]]:
        """The lowest and the last nll on held-out examples of trained segments where it rose noticeably again.

        What rises on the training rows too has diverged, and is not counted.
        """
        risen = {}
        for name in sorted(self.trained):
            seen = [of.segments[name].nll for of in self.held_out if name in of.segments and of.segments[name].tokens]
            trained = self.nll(name, at_end=True)
            if seen and trained is not None and _has_risen(min(seen), seen[-1]) and _has_risen(trained, seen[-1]):
                risen[name] = (min(seen), seen[-1])
        return risen

    def drift(self) -> dict[str, tuple[float, float]]:
        """The nll, at the start and at the end, of untrained segments whose nll rose noticeably."""
        names = dict.fromkeys(name for m in self.metrics for name in m.segments if name not in self.trained)
        risen = {}
        for name in names:
            before, after = self.nll(name, at_end=False), self.nll(name, at_end=True)
            if before is not None and after is not None and _has_risen(before, after):
                risen[name] = (before, after)
        return risen


def _has_risen(before: float, after: float) -> bool:
    return after > max(before * _RISE_OF_NLL, before + _MIN_RISE)
