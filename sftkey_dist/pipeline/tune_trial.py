"""A trial of a tuning: a Ray Tune actor that trains a run of its own.

The actor is the driver of the run. It lies on the node of the command, takes no CPU, and starts Ray Train workers on
the cluster of the tuning, as Ray recommends. A subprocess of `sftkey train` would need a cluster of its own, and all
trials would use the same accelerators. The trial is a class, because Tune ends the process of a function without
waiting for it: a class is told to end, and waits until its workers have left and its runs in MLflow have ended. If the
actor is killed, Ray ends everything that it has started.
"""

import math
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import InterruptedRunError
from sftkey_dist.interrupts import stop_gently
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.track import open_tracker
from sftkey_dist.pipeline.train import train
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.training import OBSERVATIONS, read_summary
from sftkey_dist.run_dir.artifacts.tuning import Status, TrialScore
from sftkey_dist.run_dir.lock import locked_run
from sftkey_dist.tracking import NullTracker
from sftkey_dist.tracking.numbers import numbers_of
from sftkey_dist.tracking.several import SeveralTrackers

NUMBER, STEP, SCORE, STATUS, PROBLEM = "number", "step", "score", "status", "problem"
"""Keys of a trial's configuration and results in Ray Tune. The last result has a status."""
_MOST_SECONDS_TO_END = 300
_SECONDS_BETWEEN_LOOKS = 0.5
_NO_SCORE = TrialScore(-1, math.nan)

Results = queue.Queue[dict[str, Any]]


@dataclass(frozen=True)
class TrialJob:
    """What a trial does.

    Attributes:
        config: configuration of its run, of JSON's types.
        folder: working directory of the command, from which paths are relative.
        metric: what it reports.
        stop_request: if this file exists, the trial saves a checkpoint and ends.
        scores: what a trial that is done has reported; it reports it again, for the scheduler, and trains nothing.
    """

    config: dict[str, Any]
    folder: Path
    metric: str
    stop_request: Path
    scores: tuple[TrialScore, ...] | None


class Trial(Trainable):
    """Trains one job after another, and reports the metric whenever it is measured in the last stage."""

    def setup(self, config: Mapping[str, int], jobs: Sequence[TrialJob]) -> None:
        """See Trainable. The number in the configuration is that of the job."""
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        self._jobs = jobs
        self._begin(config)

    def reset_config(self, new_config: Mapping[str, int]) -> bool:
        """See Trainable."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next result."""
        while True:
            with suppress(queue.Empty):
                return self._results.get(timeout=_SECONDS_BETWEEN_LOOKS)
            if self._job.stop_request.exists():
                stop_gently()

    def cleanup(self) -> None:
        """End the run, wherever it is: the scheduler stops the trial, or it has ended already."""
        for _ in range(int(_MOST_SECONDS_TO_END / _SECONDS_BETWEEN_LOOKS)):
            if not self._run.is_alive():
                break
            stop_gently()
            self._run.join(_SECONDS_BETWEEN_LOOKS)

    def _begin(self, config: Mapping[str, int]) -> None:
        self._job, self._results = self._jobs[config[NUMBER]], Results()
        self._run = threading.Thread(target=_carry_out, args=(self._job, self._results), name="trial", daemon=True)
        self._run.start()


def _carry_out(job: TrialJob, results: Results) -> None:
    """Put the results of a trial into the queue. An error is one too, so that other trials go on."""
    try:
        if job.stop_request.exists():
            results.put(_last("unfinished"))
        elif job.scores is None:
            results.put(_last("finished", _train(job, results)))
        else:
            for score in job.scores:
                results.put({STEP: score.step, SCORE: score.value})
            results.put(_last("finished", job.scores[-1]))
    except InterruptedRunError:
        results.put(_last("unfinished"))
    except BaseException as error:
        results.put(_last("failed", problem=in_a_line(error)))


def _last(status: Status, score: TrialScore = _NO_SCORE, problem: str = "") -> dict[str, Any]:
    return {STEP: score.step, SCORE: score.value, STATUS: status, PROBLEM: problem, "done": True}


def _train(job: TrialJob, results: Results) -> TrialScore:
    """Train a run, and return the last step with the metric of the model that is handed on."""
    os.chdir(job.folder)
    config = RunConfig.model_validate(job.config)
    run = RunDir(config.run_dir)
    with (
        locked_run(run),
        (run.path / "run.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        plan = plan_run(config, prepare(config))
        tuned = plan.stages[-1]
        scores = _Scores(f"stage/{tuned.digest}", job.metric, results)
        train(plan, SeveralTrackers([open_tracker(config), scores]), nodes_are_checked=True)
        # Those of a stage that an earlier command has finished.
        scores.log_steps(scores.stage, [to_plain(seen) for seen in OBSERVATIONS.read(tuned.directory.validation)])
    guard = read_summary(tuned.directory).guard
    is_kept = guard is not None and job.metric == "guard/score"
    return TrialScore(scores.last.step, guard.kept_score) if guard and is_kept else scores.last


class _Scores(NullTracker):
    """A tracker that reports the metric of one stage, each step once."""

    def __init__(self, stage: str, metric: str, results: Results) -> None:
        self.stage, self.last = stage, _NO_SCORE
        self._metric, self._results = metric, results

    def start_run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        """See Tracker. The key is the id."""
        return key

    def log_steps(self, run_id: str | None, records: Sequence[Mapping[str, object]]) -> None:
        """See Tracker."""
        for record in records if run_id == self.stage else ():
            value, step = numbers_of(record).get(self._metric), int(str(record["step"]))
            if value is not None and step > self.last.step:
                self.last = TrialScore(step, value)
                self._results.put({STEP: step, SCORE: value})
