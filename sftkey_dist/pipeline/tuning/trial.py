"""A trial of a tuning: a Ray Tune actor that trains a run of its own.

The actor is the driver of the run. It lies on the node of the command, takes no CPU, and starts Ray Train workers on
the cluster of the tuning, as Ray recommends. A subprocess of `sftkey train` would need a cluster of its own, and all
trials would use the same accelerators. The trial is a class, because Tune ends the process of a function without
waiting for it. Tune would also kill an actor that takes more than 10 s to end, so the scheduler ends no trial itself:
it asks, and the trial ends as one does that has made its last step, when its workers have left and its runs in MLflow
have ended. If the actor is killed, Ray ends everything that it has started.
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
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError, InterruptedRunError
from sftkey_dist.interrupts import stop_gently
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.tracking.runs import open_tracker
from sftkey_dist.pipeline.train import remove_working_files, train
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.artifacts.training import INTERPOLATIONS, OBSERVATIONS, read_summary
from sftkey_dist.run_dir.artifacts.tuning import Status, TrialScore
from sftkey_dist.run_dir.lock import locked_run
from sftkey_dist.tracking import NullTracker, Tracker
from sftkey_dist.tracking.numbers import numbers_of
from sftkey_dist.tracking.several import SeveralTrackers

NUMBER, STEP, SCORE, STATUS, PROBLEM = "number", "step", "score", "status", "problem"
"""Keys of a trial's configuration and results in Ray Tune. The last result has a status."""
_MAX_SECONDS_TO_END = 300
_POLL_SECONDS = 0.5
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
        stopped: if this file exists, the scheduler has stopped the trial: it ends, and keeps no checkpoint.
        scores: what a trial that is done has reported; it reports it again, for the scheduler, and trains nothing.
    """

    config: dict[str, Any]
    folder: Path
    metric: str
    stop_request: Path
    stopped: Path
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
        if self._run.is_alive():
            return False
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next result, which is the last one if the scheduler has stopped the trial."""
        while True:
            is_stopped = self._job.stopped.exists()
            if is_stopped or self._job.stop_request.exists():
                stop_gently()
            with suppress(queue.Empty):
                result = self._results.get(timeout=_POLL_SECONDS)
                if STATUS in result or not is_stopped:
                    return result

    def cleanup(self) -> None:
        """End the run, wherever it is: it has ended already, unless the command fails."""
        for _ in range(int(_MAX_SECONDS_TO_END / _POLL_SECONDS)):
            if not self._run.is_alive():
                break
            stop_gently()
            self._run.join(_POLL_SECONDS)

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
        results.put(_last("stopped" if job.stopped.exists() else "unfinished"))
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
        try:
            train(plan, SeveralTrackers([_tracker_or_none(config), scores]), nodes_are_checked=True)
        except InterruptedRunError:
            if job.stopped.exists():
                remove_working_files(tuned)
            raise
        # Those of a stage that an earlier command has finished.
        scores.log_steps(scores.stage, [to_plain(seen) for seen in OBSERVATIONS.read(tuned.directory.validation)])
    return TrialScore(scores.last.step, score_of_result(tuned.directory, job.metric))


def _tracker_or_none(config: RunConfig) -> Tracker:
    """The tracker of a run. It was opened before the trials, so that now an outage is the only reason for an error."""
    try:
        return open_tracker(config)
    except ConfigError as error:
        later = f"`sftkey track sync {config.run_dir}` tracks it later"
        console.print(f"warning: the trial is not tracked: {error}; {later}", soft_wrap=True, markup=False)
        return NullTracker()


def score_of_result(stage: StageDir, metric: str) -> float:
    """The metric of the model that a finished stage hands on: the one that its guard kept, or else the last one."""
    guard, measured = read_summary(stage).guard, OBSERVATIONS.read(stage.validation)
    if guard is not None and guard.kept_part is not None:
        between = next(seen for seen in INTERPOLATIONS.read(stage.interpolations) if seen.part == guard.kept_part)
        return numbers_of(to_plain(between))[metric]
    scores = {seen.step: numbers_of(to_plain(seen)).get(metric, math.nan) for seen in measured}
    return scores[guard.kept_step if guard is not None else max(scores)]


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
