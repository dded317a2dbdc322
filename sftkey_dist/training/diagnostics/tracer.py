"""Traces of whole steps, for a viewer such as Perfetto or Chrome's."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from sftkey_dist.run_dir import StageDir


class StepTracer:
    """Writes a trace of torch's profiler for chosen steps; every rank writes its own."""

    def __init__(self, steps: Sequence[int], stage: StageDir, rank: int) -> None:
        """
        Args:
            steps: numbers of the steps, from 0 on.
            stage: the stage that is trained.
            rank: this rank.
        """
        self._steps, self._stage, self._rank = frozenset(steps), stage, rank

    def traces(self, step: int) -> bool:
        """Whether a step is traced; no other profiler can then run."""
        return step in self._steps

    @contextmanager
    def tracing(self, step: int) -> Iterator[None]:
        """Trace the block if it is one of the chosen steps."""
        if not self.traces(step):
            yield
            return
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports on stderr when it starts and stops
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        with profile(activities=activities, record_shapes=True) as profiler:
            yield
        file = self._stage.trace(self._rank, step)
        file.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(file))
