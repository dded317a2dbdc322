"""Where the time of a step goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by phase, on this rank's clock.

    On accelerators work is queued: a phase that waits for the device (backward, optimizer) is charged for what earlier
    ones queued. The sum is right.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the block to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """The seconds of each phase since the last call."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds
