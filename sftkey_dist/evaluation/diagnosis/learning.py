"""The learning curves of a strategy's last stage: what it learned, and what got worse meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from sftkey_dist.run_dir.artifacts.training import GuardScores, StepMetrics

_SHARE_OF_CURVE = 0.1


@dataclass(frozen=True)
class StageCurves:
    """Metrics of the last stage of a strategy.

    Attributes:
        name: name of the stage.
        continues: whether the stage continues from another.
        trained: segments with a positive loss weight.
        metrics: metrics of its steps.
        guard: scores of its guard, in order; empty without a guard.
    """

    name: str
    continues: bool
    trained: frozenset[str]
    metrics: Sequence[StepMetrics]
    guard: Sequence[GuardScores]

    @property
    def trains_structure(self) -> bool:
        """Whether the stage trains what marks the segments."""
        return any(name.endswith(".open") for name in self.trained)

    def nll(self, segment: str, *, at_end: bool) -> float | None:
        """Mean nll of a segment in nats per token, over the first or last tenth of the steps that measured it."""
        seen = [m.segments[segment] for m in self.metrics if segment in m.segments]
        seen = [s for s in seen if s.tokens]
        if not seen:
            return None
        number = max(1, int(len(seen) * _SHARE_OF_CURVE))
        part = seen[-number:] if at_end else seen[:number]
        return sum(s.nll * s.tokens for s in part) / sum(s.tokens for s in part)

    def drift(self) -> dict[str, tuple[float, float]]:
        """The nll, at the start and at the end, of untrained segments whose nll rose noticeably."""
        names = dict.fromkeys(name for m in self.metrics for name in m.segments if name not in self.trained)
        risen = {}
        for name in names:
            before, after = self.nll(name, at_end=False), self.nll(name, at_end=True)
            if before is not None and after is not None and after > max(before * 1.25, before + 0.05):
                risen[name] = (before, after)
        return risen
