"""tune.json: the trials of a tuning."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from sftkey_dist.run_dir.artifacts.kinds import JsonFile, Measured

Status = Literal["unfinished", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrialScore:
    """The metric after ``step`` optimizer steps of the tuned stage."""

    step: int
    value: Measured


@dataclass(frozen=True)
class TrialRecord:
    """A trial.

    Attributes:
        run_dir: its run directory, relative to the tuning's folder.
        digest: digest of everything that its result depends on.
        parameters: values of the tuned keys.
        status: ``stopped`` by the scheduler, or else how its training ended.
        scores: the metric during the tuned stage, by step.
        final: the metric of the model that a finished trial hands on, which with a guard is the model that it kept; nan
            for others.
        problem: why it failed, in one line.
    """

    run_dir: str
    digest: str
    parameters: Mapping[str, object]
    status: Status = "unfinished"
    scores: tuple[TrialScore, ...] = ()
    final: Measured = math.nan
    problem: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.status in ("finished", "stopped")

    @property
    def score(self) -> float:
        """The final value or, for a trial without one, the last value."""
        return self.final if self.status == "finished" else self.scores[-1].value if self.scores else math.nan

    @property
    def label(self) -> str:
        """Its folder and its parameters."""
        return f"{self.run_dir}: {', '.join(f'{key}={value}' for key, value in self.parameters.items())}"


@dataclass(frozen=True)
class AshaRule:
    """When the scheduler stops a trial; see the keys of the same names in `tune`."""

    grace_period_steps: int | None
    reduction_factor: int


@dataclass(frozen=True)
class TuningRecord:
    """All trials of a tuning.

    Attributes:
        strategy: the tuned strategy.
        metric: what is compared.
        mode: whether its higher values are better (``max``) or its lower ones (``min``).
        held_out: number of held-out rows that the metric is measured on.
        asha: by what rule trials are stopped; None if every trial runs to its end.
        trials: in the order in which they start.
    """

    strategy: str
    metric: str
    mode: Literal["min", "max"]
    held_out: int
    asha: AshaRule | None
    trials: tuple[TrialRecord, ...]

    def with_done_of(self, earlier: "TuningRecord") -> Self:
        """The record with the trials of the same configuration that an earlier command has done.

        Scores of another metric are not taken over, and what another rule has stopped may go on.
        """
        if earlier.metric != self.metric:
            return self
        kept = ["finished", "stopped"] if earlier.asha == self.asha else ["finished"]
        done = {(trial.run_dir, trial.digest): trial for trial in earlier.trials if trial.status in kept}
        return replace(self, trials=tuple(done.get((trial.run_dir, trial.digest), trial) for trial in self.trials))

    @property
    def by_score(self) -> list[TrialRecord]:
        """Finished trials, then others, each with the best first; of equal scores the earliest."""
        sign = -1 if self.mode == "max" else 1

        def place(trial: TrialRecord) -> tuple[bool, bool, float]:
            is_unknown = math.isnan(trial.score)
            return trial.status != "finished", is_unknown, 0.0 if is_unknown else sign * trial.score

        return sorted(self.trials, key=place)

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial with the best score; None if none is finished."""
        first = self.by_score[0]
        return None if first.status != "finished" or math.isnan(first.score) else first


TUNING = JsonFile(
    TuningRecord, "restore it from a copy, or remove it: `sftkey tune` then reads what its runs have trained"
)
