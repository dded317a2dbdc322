"""Measures what the time of a step is spent on."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by phase, on this rank's clock.

    On accelerators work is queued: a phase that waits for the device (backward, optimizer) is charged for what earlier
    phases queued. The sum is exact.

    Attributes:
        current_phase: the phase that this rank is in, for a heartbeat.
        num_phases: number of phases that have begun, which grows while the rank makes progress.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self.current_phase, self.num_phases = "start", 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the block to a phase."""
        started, outer_phase, self.current_phase = time.perf_counter(), self.current_phase, name
        self.num_phases += 1
        try:
            yield
        finally:
            self.current_phase = outer_phase
            self._seconds[name] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call, and start anew."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds
