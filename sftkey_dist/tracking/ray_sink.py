"""Exports the numbers of a run through Ray: each node of a Ray cluster has an endpoint that Prometheus reads."""

import functools
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ray.util.metrics import Counter, Gauge

from sftkey_dist.tracking.sink import Known, SinkRun, SinkTracker
from sftkey_dist.tracking.tracker import RUN_TAG, STAGE_TAG, RunStatus

_SECONDS_BETWEEN_EXPORTS = 5.0
"""A gauge that is not set again disappears from the endpoint after two of Ray's reports, which are 10 s apart."""
_SEGMENT = re.compile(r"(validation/)?segments/(.+)/(nll|token_accuracy)")


@dataclass(frozen=True)
class _Measure:
    """A metric of Prometheus, whose name ends in the unit. ``factor`` converts our number to that unit."""

    name: str
    description: str
    factor: float = 1.0


_GAUGES = {
    "step": _Measure("sftkey_step", "Newest step, from 0."),
    "loss": _Measure("sftkey_loss_nats", "Loss that the stage minimises."),
    "learning_rate": _Measure("sftkey_learning_rate", "Learning rate of the step."),
    "grad_norm": _Measure("sftkey_gradient_norm", "Norm of the gradient before clipping."),
    "seconds": _Measure("sftkey_step_seconds", "Duration of the step."),
    "tokens_per_second": _Measure("sftkey_tokens_per_second", "Throughput of all ranks, without padding."),
    "mfu": _Measure("sftkey_model_flops_utilization_ratio", "Model FLOP utilisation."),
    "world_size": _Measure("sftkey_ranks", "Number of ranks."),
    "peak_memory_gib": _Measure("sftkey_peak_memory_bytes", "Peak memory of rank 0.", 2.0**30),
    "validation/loss": _Measure("sftkey_held_out_loss_nats", "Loss on held-out examples."),
    "guard/score": _Measure("sftkey_guard_score_ratio", "Score by which the guard ranks models."),
    "guard/accuracy": _Measure("sftkey_guard_accuracy_ratio", "Accuracy that the guard measured."),
    "guard/format": _Measure("sftkey_guard_format_ratio", "Share of the guard's outputs that keep the contract."),
}
_SEGMENT_GAUGES = {
    "nll": _Measure("sftkey_segment_nll_nats", "Mean negative log-likelihood of a segment's tokens."),
    "token_accuracy": _Measure(
        "sftkey_segment_token_accuracy_ratio", "Share of a segment's tokens that are likeliest."
    ),
    "validation/nll": _Measure("sftkey_held_out_segment_nll_nats", "The same on held-out examples."),
    "validation/token_accuracy": _Measure("sftkey_held_out_segment_token_accuracy_ratio", "The same on held-out ones."),
}
_COUNTERS = {
    "tokens": _Measure("sftkey_tokens", "Tokens that the stage has trained on."),
    "loss_tokens": _Measure("sftkey_loss_tokens", "Tokens with a loss that the stage has trained on."),
}


class LiveTracker(SinkTracker):
    """Shows a run while it is worked on. Nothing is kept, so that nothing is missing afterwards."""

    def log_missing(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> int:
        """See Tracker."""
        return 0


class RaySink:
    """The newest numbers of each stage that is trained, as gauges and counters of the driver."""

    title = "Ray's metrics"
    remedy = "the next command exports them again"

    def __init__(self) -> None:
        self._exports: dict[str, _Export] = {}

    def known(self, key: str) -> Known:
        """See Sink. An evaluation is over when it is logged, so that no other tracker has to log it again."""
        return Known(is_finished=True)

    def write(self, run: SinkRun, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """See Sink."""
        if run.key not in self._exports:
            self._exports[run.key] = _Export(run)
        for step, values in rows:
            self._exports[run.key].take(step, values)
        self._exports[run.key].show()

    def write_summary(self, run: SinkRun, values: Mapping[str, float]) -> None:
        """See Sink. Scores are not exported: they are there when the command ends."""

    def end(self, run: SinkRun, status: RunStatus) -> None:
        """See Sink. The gauges disappear."""
        if export := self._exports.pop(run.key, None):
            export.has_ended.set()


class _Export:
    """The current values of a stage, which a thread exports until the stage has ended."""

    def __init__(self, run: SinkRun) -> None:
        self.has_ended = threading.Event()
        self._tags = {
            "run": run.tags.get(RUN_TAG, ""),
            "strategy": run.strategy,
            "stage": run.tags.get(STAGE_TAG, ""),
        }
        self._values: dict[tuple[_Measure, str | None], float] = {}
        threading.Thread(target=self._show_again, name="ray-metrics", daemon=True).start()

    def take(self, step: int, values: Mapping[str, float]) -> None:
        """Count what a step has trained, and remember its values. What is no number is left out, as Ray does."""
        numbers = {name: value for name, value in values.items() if math.isfinite(value)}
        if "loss" in numbers:
            numbers["step"] = step
        for name, value in numbers.items():
            if measure := _GAUGES.get(name):
                self._values[measure, None] = value * measure.factor
            elif of_segment := _SEGMENT.fullmatch(name):
                place, segment, kind = of_segment.groups(default="")
                self._values[_SEGMENT_GAUGES[place + kind], segment] = value
            elif (counted := _COUNTERS.get(name)) and value > 0:
                _counter(counted, tuple(self._tags)).inc(value, self._tags)

    def show(self) -> None:
        """Export the values."""
        for (measure, segment), value in list(self._values.items()):
            tags = self._tags | ({"segment": segment} if segment is not None else {})
            _gauge(measure, tuple(tags)).set(value, tags)

    def _show_again(self) -> None:
        while not self.has_ended.wait(_SECONDS_BETWEEN_EXPORTS):
            self.show()


@functools.cache
def _gauge(measure: _Measure, tag_keys: tuple[str, ...]) -> Gauge:
    return Gauge(measure.name, measure.description, tag_keys)


@functools.cache
def _counter(measure: _Measure, tag_keys: tuple[str, ...]) -> Counter:
    return Counter(measure.name, measure.description, tag_keys)
