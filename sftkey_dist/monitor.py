"""Follows a stage's journals from the driver: progress bar and MLflow, without a word from the workers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sftkey_dist.console import ProgressLine, progress_line
from sftkey_dist.run_dir import StageDir
from sftkey_dist.tracking import Tracker

_POLL_SECONDS = 0.5


@contextmanager
def follow_stage(
    stage_dir: StageDir, title: str, num_steps: int, tracker: Tracker, run_id: str | None
) -> Iterator[None]:
    """While the block lasts, draw the stage's progress and log its steps; log the rest when it ends."""
    with progress_line(title, num_steps) as line:
        follower = _Follower(stage_dir, line, tracker, run_id)
        finished = threading.Event()
        thread = threading.Thread(target=_poll, args=(follower, finished), name="stage-monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            follower.catch_up()


def _poll(follower: "_Follower", finished: threading.Event) -> None:
    while not finished.wait(_POLL_SECONDS):
        follower.catch_up()


class _Follower:
    def __init__(self, stage_dir: StageDir, line: ProgressLine, tracker: Tracker, run_id: str | None) -> None:
        self._stage_dir = stage_dir
        self._line = line
        self._tracker = tracker
        self._run_id = run_id
        self._shown = 0
        self._logged = tracker.steps_logged(run_id)

    def catch_up(self) -> None:
        metrics = read_journal(self._stage_dir.metrics)
        timings = read_journal(self._stage_dir.timings)
        # Timings are written after metrics. A resumed stage first shortens both, so a list may shrink.
        records = [metric | timing for metric, timing in zip(metrics, timings, strict=False)]
        if len(records) > self._shown:
            self._line.advance(len(records) - self._shown, _note(records[-1]))
            self._shown = len(records)
        new = [record for record in records if record["step"] >= self._logged]
        if new:
            self._tracker.log_steps(self._run_id, new)
            self._logged = new[-1]["step"] + 1


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a .jsonl file that may be being written."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _note(record: dict[str, Any]) -> str:
    return f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tok/s"
