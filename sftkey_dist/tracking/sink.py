"""Trackers of numbers alone, which get the same events as MLflow: steps, held-out losses and scores."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.console import console
from sftkey_dist.interrupts import interruptions_kept
from sftkey_dist.tracking.numbers import numbers_of
from sftkey_dist.tracking.tracker import STRATEGY_TAG, MeasuredScores, NullTracker, RunStatus

P = ParamSpec("P")
T = TypeVar("T")

_SAME = 1e-6
"""Relative difference of values that are the same: event files have float32."""


@dataclass
class Known:
    """What a sink has of a run.

    Attributes:
        next_steps: the step after the last one that it has, by metric.
        summary: the last value of every metric that has been logged without a step.
        is_finished: whether the run was logged completely.
    """

    next_steps: dict[str, int] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    is_finished: bool = False


@dataclass
class SinkRun:
    """A run as a sink sees it. ``settings`` are its parameters, and ``strategy`` is the strategy that it belongs to."""

    key: str
    name: str
    strategy: str
    tags: Mapping[str, str]
    known: Known
    settings: Mapping[str, object] = field(default_factory=dict)


class Sink(Protocol):
    """A place for numbers. A run is opened when something is written to it, and may be written to again after its end.

    Attributes:
        title: its name in messages.
        remedy: what to do after an outage.
    """

    title: str
    remedy: str

    def known(self, key: str) -> Known:
        """What earlier commands have written to a run."""
        ...

    def write(self, run: SinkRun, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Write the metrics of steps; ``run.known`` has them already."""
        ...

    def write_summary(self, run: SinkRun, values: Mapping[str, float]) -> None:
        """Write metrics without a step; ``run.known`` has them already."""
        ...

    def end(self, run: SinkRun, status: RunStatus) -> None:
        """Close a run, if it is open."""
        ...


def _until_it_fails(
    method: Callable[Concatenate["SinkTracker", P], T],
) -> Callable[Concatenate["SinkTracker", P], T | None]:
    """Turn the first error of a sink into a warning, and write nothing after it, so that no step is left out."""

    @functools.wraps(method)
    def guarded(self: "SinkTracker", *arguments: P.args, **keywords: P.kwargs) -> T | None:
        if self.is_off:
            return None
        try:
            with interruptions_kept():
                return method(self, *arguments, **keywords)
        except Exception as error:  # whatever a file system, a network or a client raises
            self.turn_off(error)
            return None

    return guarded  # type: ignore[return-value]  # the type of wraps() loses that self is positional


class SinkTracker(NullTracker):
    """Writes each number once to a sink. Artifacts, tables, data sets and models are MLflow's alone."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._runs: dict[str, SinkRun] = {}
        self.is_off = False

    def turn_off(self, error: Exception) -> None:
        """Warn about the error. The sink gets nothing more from this command."""
        self.is_off = True
        console.print(
            f"warning: {self._sink.title} failed ({in_a_line(error)}); the run goes on without it, its metrics are in "
            f"metrics.jsonl; {self._sink.remedy}",
            markup=False,
        )

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        """See Tracker. The key is the id, so that it exists in an outage too."""
        if key not in self._runs:
            known = self._known(key) or Known()
            self._runs[key] = SinkRun(key, name, tags.get(STRATEGY_TAG, name), tags, known)
        return key

    def log_params(self, run_id: str | None, params: Mapping[str, object]) -> None:
        """See Tracker."""
        if run_id is not None:
            self._runs[run_id].settings = params

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """See Tracker."""
        self._log(run_id, records)

    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int:
        """See Tracker. An outage was warned of, and counts as 0, so that others still get what they lack."""
        return self._log(run_id, records) or 0

    @_until_it_fails
    def _log(self, run_id: str | None, records: Sequence[Mapping[str, Any]]) -> int:
        if run_id is None:
            return 0
        run = self._runs[run_id]
        rows = [(int(record["step"]), _new_in(record, run.known.next_steps)) for record in records]
        rows = [(step, values) for step, values in rows if values]
        if rows:
            self._sink.write(run, rows)
        return sum(len(values) for _, values in rows)

    @_until_it_fails
    def log_summary(self, run_id: str | None, metrics: Mapping[str, float]) -> None:
        """See Tracker. What the run has already is not written again."""
        if run_id is None:
            return
        run = self._runs[run_id]
        new = {name: value for name, value in metrics.items() if not _is_same(value, run.known.summary.get(name))}
        if new:
            run.known.summary |= new
            self._sink.write_summary(run, new)

    def log_scores(self, run_id: str | None, scores: Sequence[MeasuredScores], model_of: str | None) -> None:
        """See Tracker."""
        self.log_summary(run_id, {name: value for measured in scores for name, value in measured.values.items()})

    def steps_logged(self, run_id: str | None, metrics: Sequence[str]) -> int:
        """See Tracker."""
        known = {} if run_id is None else self._runs[run_id].known.next_steps
        return max((known.get(metric, 0) for metric in metrics), default=0)

    @_until_it_fails
    def end_run(self, run_id: str | None, status: RunStatus = "FINISHED") -> None:
        """See Tracker."""
        if run_id is not None:
            self._runs[run_id].known.is_finished = status == "FINISHED"
            self._sink.end(self._runs[run_id], status)

    def has_finished(self, key: str) -> bool:
        """See Tracker. A sink that failed has nothing that others should do again."""
        known = self._known(key)
        return known is None or known.is_finished

    @_until_it_fails
    def _known(self, key: str) -> Known:
        return self._runs[key].known if key in self._runs else self._sink.known(key)


def _new_in(record: Mapping[str, Any], next_steps: dict[str, int]) -> dict[str, float]:
    """The metrics of a record whose step is new, which is noted: a restarted worker group writes steps again."""
    step = int(record["step"])
    new = {name: value for name, value in numbers_of(record).items() if step >= next_steps.get(name, 0)}
    next_steps |= dict.fromkeys(new, step + 1)
    return new


def _is_same(value: float, known: float | None) -> bool:
    return known is not None and math.isclose(value, known, rel_tol=_SAME)
