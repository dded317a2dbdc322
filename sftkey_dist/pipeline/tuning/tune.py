"""Tunes keys of a run with Ray Tune: trains sampled configurations, each as a run of its own.

The record of the trials is written whenever one of them is measured, so that the same command continues.
"""

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.util import get_node_ip_address

from sftkey_dist.cluster.connection import connected, room_for
from sftkey_dist.config import RunConfig
from sftkey_dist.config.tune import Tuning
from sftkey_dist.console import console, progress_line
from sftkey_dist.errors import InterruptedRunError
from sftkey_dist.files import write_text_atomically
from sftkey_dist.interrupts import stopping_gently
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.pipeline.study.run_digest import made_of
from sftkey_dist.pipeline.train import remove_working_files
from sftkey_dist.pipeline.tuning.plan import (
    link_folders,
    plan_trial,
    require_scores,
    sample,
    train_shared,
    trial_config,
)
from sftkey_dist.pipeline.tuning.trial import NUMBER, PROBLEM, SCORE, STATUS, STEP, Trial, TrialJob
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.tuning import TUNING, AshaRule, TrialRecord, TrialScore, TuningRecord
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.run_dir.lock import locked_run

_POLL_SECONDS = 0.5
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # their files repeat what runs write
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output ignores verbose=0
}


def run_tuning(tuning: Tuning) -> TuningRecord:
    """Train every trial that is not done with its current configuration.

    Raises:
        ConfigError: a configuration is wrong, or trials cannot be told apart.
        InterruptedRunError: a signal ended the trials, after a checkpoint of each.
    """
    run = RunDir(tuning.folder)
    with locked_run(run):
        parameters = sample(tuning)
        configs = [trial_config(tuning, f"trial-{number:03d}", each) for number, each in enumerate(parameters, start=1)]
        trials = [
            TrialRecord(config.run_dir.name, made_of(config), values)
            for config, values in zip(configs, parameters, strict=True)
        ]
        record = _fresh_record(tuning, configs[0], trials)
        if run.tuning.is_file():
            record = record.with_done_of(TUNING.read(run.tuning))
        TUNING.write(run.tuning, record)
        if not all(trial.is_done for trial in record.trials):
            _carry_out(tuning, run, configs, record)
    return TUNING.read(run.tuning)


def _fresh_record(tuning: Tuning, config: RunConfig, trials: Sequence[TrialRecord]) -> TuningRecord:
    settings, guard = tuning.settings, config.validation.guard
    by_guard = guard is not None and settings.metric.startswith("guard/")
    held_out = guard.num_examples if guard and by_guard else config.validation.num_examples
    asha = AshaRule(settings.grace_period_steps, settings.reduction_factor) if settings.scheduler == "asha" else None
    return TuningRecord(settings.strategy, settings.metric, settings.mode, held_out, asha, tuple(trials))


def _carry_out(tuning: Tuning, run: RunDir, configs: Sequence[RunConfig], record: TuningRecord) -> None:
    first = configs[0].model_copy(update={"run_dir": tuning.folder / "first-stages"})
    preparation = prepare(first)
    plans = [plan_trial(config, preparation) for config in configs]
    tuned = [stages[-1] for stages in plans]
    require_scores(tuning, first, tuned)
    left = [config for config, trial in zip(configs, record.trials, strict=True) if not trial.is_done]
    cluster, at_a_time = first.cluster, min(tuning.settings.max_concurrent or 1, len(left))
    with connected(cluster, cluster.num_workers * at_a_time):
        shared = train_shared(plan_run(first, preparation), plans)
        for config in left:
            folders = [*shared, *preparation.run.path.glob("base_model-*")]
            link_folders(folders, preparation.run, RunDir(config.run_dir))
        if tuning.settings.max_concurrent is None:
            at_a_time = max(1, room_for(cluster) // cluster.num_workers)
        try:
            _run_trials(tuning, run, configs, tuned, at_a_time)
        finally:  # a trial removes its own, unless its process was lost
            for stage, trial in zip(tuned, TUNING.read(run.tuning).trials, strict=True):
                if trial.status == "stopped":
                    remove_working_files(stage)


def _run_trials(
    tuning: Tuning, run: RunDir, configs: Sequence[RunConfig], tuned: Sequence[PlannedStage], at_a_time: int
) -> None:
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    shutil.rmtree(run.ray_storage, ignore_errors=True)  # of a command that was killed
    stop_request = run.ray_storage / "stop_request"
    recorder = _Recorder(run, [stage.directory.events for stage in tuned])
    jobs = [
        TrialJob(
            config.model_dump(mode="json"),
            Path.cwd(),
            tuning.settings.metric,
            stop_request,
            run.ray_storage / f"{trial.run_dir}-stopped",
            trial.scores if trial.is_done else None,
        )
        for config, trial in zip(configs, TUNING.read(run.tuning).trials, strict=True)
    ]
    # On this node, and without a CPU, which are for the workers of the trials.
    trainable = tune.with_resources(tune.with_parameters(Trial, jobs=jobs), {f"node:{get_node_ip_address()}": 0.001})
    tuner = tune.Tuner(
        trainable,
        param_space={NUMBER: tune.grid_search(list(range(len(jobs))))},
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode=tuning.settings.mode,
            scheduler=_scheduler(tuning, jobs, tuned),
            max_concurrent_trials=at_a_time,
            reuse_actors=True,  # starting a process takes longer than many trials
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(run.ray_storage),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    try:
        _fit(tuner, run, stop_request)
    finally:
        shutil.rmtree(run.ray_storage, ignore_errors=True)


def _scheduler(tuning: Tuning, jobs: Sequence[TrialJob], tuned: Sequence[PlannedStage]) -> "AskingAsha | None":
    settings, guard, validation = tuning.settings, tuned[0].job.guard, tuned[0].job.validation
    if settings.scheduler == "none":
        return None
    measured = guard.settings if guard is not None and settings.metric.startswith("guard/") else validation
    most_steps = max(stage.num_steps for stage in tuned)
    return AskingAsha(
        [(stage.num_steps, job.stopped) for stage, job in zip(tuned, jobs, strict=True)],
        time_attr=STEP,
        max_t=most_steps,
        grace_period=min(settings.grace_period_steps or measured.every_steps, most_steps),
        reduction_factor=settings.reduction_factor,
        stop_last_trials=False,
    )


class AskingAsha(tune.schedulers.ASHAScheduler):
    """Asks trials to end, because Tune kills what takes long to end, and none that has made its last step, which only
    has to hand on its model."""

    def __init__(self, trials: Sequence[tuple[int, Path]], **settings: Any) -> None:
        """
        Args:
            trials: by number, its number of steps, and the file that asks it to end.
            settings: see ASHAScheduler.
        """
        super().__init__(**settings)
        self._trials = trials

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """See TrialScheduler."""
        decision = super().on_trial_result(tune_controller, trial, result)
        num_steps, stopped = self._trials[trial.config[NUMBER]]
        if decision == self.STOP and result[STEP] < num_steps:
            write_text_atomically(stopped, "")
        return str(self.CONTINUE)


def _fit(tuner: tune.Tuner, run: RunDir, stop_request: Path) -> None:
    """Run all trials in a thread, because in the main thread Tune replaces the signal handlers.

    Raises:
        InterruptedRunError: a signal came.
    """
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, name="tune", daemon=True)
    num_trials = len(TUNING.read(run.tuning).trials)
    with stopping_gently(lambda: write_text_atomically(stop_request, "")) as stop:
        thread.start()
        with progress_line("trials", num_trials) as line:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                line.update(sum(trial.status != "unfinished" for trial in TUNING.read(run.tuning).trials))
    if stop.signal_number is not None:
        raise InterruptedRunError(stop.signal_number)
    for error in errors:
        raise error


class _Recorder(tune.Callback):
    """Keeps the record of the trials up to date."""

    def __init__(self, run: RunDir, events: Sequence[Path]) -> None:
        self._run, self._events, self._record = run, events, TUNING.read(run.tuning)
        self._done = [trial.is_done for trial in self._record.trials]

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """See Callback."""
        number = trial.config[NUMBER]
        if STATUS not in result:
            scores = self._record.trials[number].scores
            self._change(number, scores=(*scores, TrialScore(result[STEP], result[SCORE])))
        else:
            self._change(number, status=result[STATUS], final=result[SCORE], problem=result[PROBLEM])
            if result[STATUS] == "stopped":
                last = self._record.trials[number].scores[-1]
                said = f"stopped by the scheduler after step {last.step}, with {self._record.metric} {last.value:.4g}"
                append_event(self._events[number], "stopped", said)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Callback. Errors of a run are results: this is the end of the trial's process."""
        number = trial.config[NUMBER]
        log = self._run.path / self._record.trials[number].run_dir / "run.log"
        self._change(number, status="failed", problem=f"its process ended (see {log})")

    def _change(self, number: int, **changes: Any) -> None:
        """Change the record of a trial, unless it was done before this command."""
        if self._done[number]:
            return
        trials = [*self._record.trials]
        trials[number] = changed = replace(trials[number], **changes)
        self._record = replace(self._record, trials=tuple(trials))
        TUNING.write(self._run.tuning, self._record)
        if changed.status != "unfinished":
            console.print(f"{changed.label}: {changed.status}", soft_wrap=True, markup=False)
