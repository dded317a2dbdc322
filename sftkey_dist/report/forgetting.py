"""What the training made models forget: tasks beside the base model, and what the last stage changed besides."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sftkey_dist.contract import END_OF_TURN, PROMPT
from sftkey_dist.evaluation.capabilities.changes import CapabilityChange, capability_changes
from sftkey_dist.report.numbers import UNKNOWN, number, p_value
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.capabilities import read_capabilities
from sftkey_dist.run_dir.artifacts.run import StrategyEntry
from sftkey_dist.run_dir.artifacts.training import INTERPOLATIONS, OBSERVATIONS, HeldOutMetrics, read_summary

FORGETTING_HEADS = ("strategy", "measure", "n", "before", "after", "difference", "p (Holm)")
FORGETTING = (
    "Before: the base model, or the start of the last stage for measures on held-out examples; p: McNemar's exact test "
    "or the paired t-test, with Holm's correction for all tests of the run; brackets are 95 % intervals without it"
)
"""What the columns mean."""


@dataclass(frozen=True)
class Drift:
    """A measure on held-out examples at the start of a strategy's last stage, and of the model that it hands on."""

    measure: str
    before: float
    after: float


@dataclass(frozen=True)
class Forgetting:
    """What a strategy's model has forgotten; empty if its run measures no capabilities."""

    changes: tuple[CapabilityChange, ...]
    drift: tuple[Drift, ...] = ()

    def by_key(self) -> dict[str, object]:
        """Its keys in `comparison.json`; none if nothing was compared."""
        return {"capabilities": self.changes, "last_stage_drift": self.drift} if self.changes else {}

    def cells(self, label: str) -> Iterator[list[str]]:
        """A line of a table for each measure, under `FORGETTING_HEADS`; ``*`` marks significant differences."""
        for change in self.changes:
            low, high = change.difference_interval
            interval = f" [{low:+.2f}, {high:+.2f}]" if not math.isnan(low) else ""
            yield [
                label,
                f"{change.task} {change.metric}",
                f"{change.n:,}" if change.n else UNKNOWN,
                number(change.before),
                number(change.after),
                f"{change.difference:+.3f}{interval}",
                p_value(change.adjusted_p_value) + (" *" if change.is_significant else ""),
            ]
        for drift in self.drift:
            difference = f"{drift.after - drift.before:+.3f}"
            values = [number(drift.before), number(drift.after), difference]
            yield [label, f"held-out {drift.measure}", UNKNOWN, *values, UNKNOWN]


def read_forgetting(run: RunDir, entries: Mapping[str, StrategyEntry]) -> dict[str, Forgetting]:
    """What the model of each strategy of a run has forgotten.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    found = read_capabilities(run)
    changes = capability_changes(found.base, found.strategies)
    return {name: _forgetting(run, entry, changes.get(name, ())) for name, entry in entries.items()}


def _forgetting(run: RunDir, entry: StrategyEntry, changes: tuple[CapabilityChange, ...]) -> Forgetting:
    if not changes or len(entry.stages) < 2:
        return Forgetting(changes)
    return Forgetting(changes, _last_stage_drift(StageDir(run.path / entry.stages[-1].path), entry.key_segments))


def _last_stage_drift(stage: StageDir, key_segments: Sequence[str]) -> tuple[Drift, ...]:
    """The nll of the segments that are no key segments, and the format, as far as the stage has measured them."""
    observations, guard = OBSERVATIONS.read(stage.validation), read_summary(stage).guard
    measured = {found.step: found.validation for found in observations if found.validation is not None}
    formats = {found.step: found.guard.format for found in observations if found.guard and found.guard.signal is None}
    end = measured.get(guard.kept_step if guard else max(measured, default=0))
    last_format = formats.get(guard.kept_step if guard else max(formats, default=0))
    if guard is not None and guard.kept_part is not None:
        kept = next(found for found in INTERPOLATIONS.read(stage.interpolations) if found.part == guard.kept_part)
        end, last_format = kept.validation, kept.guard.format
    found = []
    if 0 in measured and end is not None:
        found += list(_nll(measured[0], end, key_segments))
    if 0 in formats and last_format is not None:
        found.append(Drift("format", formats[0], last_format))
    return tuple(found)


def _nll(before: HeldOutMetrics, after: HeldOutMetrics, key_segments: Sequence[str]) -> Iterator[Drift]:
    for name, metrics in before.segments.items():
        if name not in (*key_segments, PROMPT, END_OF_TURN) and "." not in name and name in after.segments:
            yield Drift(f"{name} nll", metrics.nll, after.segments[name].nll)


def forgotten_in_words(found: Mapping[str, Forgetting]) -> str:
    """Which strategies lost what, by label; "" if nothing was compared."""
    tested = [change for of in found.values() for change in of.changes if change.p_value is not None]
    if not tested:
        return ""
    lost = [
        f"{label} on {change.task} {change.metric} by {abs(change.difference):.3f}"
        for label, of in found.items()
        for change in of.changes
        if change.is_loss
    ]
    if lost:
        return f"Beside the base model, worse by more than chance: {', '.join(lost)}."
    return "No model is worse than the base model by more than chance in these tasks; a small loss may go unseen."
