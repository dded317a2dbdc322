"""Sends runs to Weights & Biases."""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from sftkey_dist.config.tracking import WandbConfig
from sftkey_dist.run_dir.artifacts.run import WANDB_RUNS, WandbRun
from sftkey_dist.tracking.sink import Known, SinkRun
from sftkey_dist.tracking.tracker import RunStatus

_SECONDS = 30.0
"""How long a server may take that is asked to begin a run, or is still sent numbers at a run's end."""
_NOT_IN_A_PROJECT = re.compile(r"[/\\#?%:]")
_MAX_CHARACTERS = 128


class WandbSink:
    """A W&B run for each of our runs, grouped by run directory. A file has their ids and what was sent to them.

    W&B gets what MLflow gets: no source code, console output, package list or name of the machine.
    """

    title = "W&B"
    remedy = "`wandb sync` sends what the folder `wandb` of the run has, `sftkey track sync RUN` what it lacks"

    def __init__(self, config: WandbConfig, project: str, run_dir: Path, runs: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._config, self._run_dir, self._file = config, run_dir, runs
        self._project = _NOT_IN_A_PROJECT.sub("-", config.project or project)[:_MAX_CHARACTERS]
        self._open: dict[str, Any] = {}

    def known(self, key: str) -> Known:
        """See Sink."""
        sent = self._sent().get(key)
        return Known() if sent is None else Known(dict(sent.next_steps), dict(sent.summary), sent.is_finished)

    def write(self, run: SinkRun, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """See Sink."""
        opened = self._opened(run)
        for step, values in rows:
            opened.log({"step": step, **values})
        self._note(run)

    def write_summary(self, run: SinkRun, values: Mapping[str, float]) -> None:
        """See Sink."""
        self._opened(run).summary.update(dict(values))
        self._note(run)

    def end(self, run: SinkRun, status: RunStatus) -> None:
        """See Sink."""
        if opened := self._open.pop(run.key, None):
            opened.finish(exit_code=int(status != "FINISHED"))
        if run.key in self._sent():
            self._note(run)

    def _opened(self, run: SinkRun) -> Any:
        if run.key not in self._open:
            self._open[run.key] = self._begin(run)
        return self._open[run.key]

    def _begin(self, run: SinkRun) -> Any:
        """Begin the W&B run, or continue it under the id that it has."""
        kind = run.key.partition("/")[0]
        opened = wandb.init(
            dir=self._run_dir,
            project=self._project,
            entity=self._config.entity,
            mode=self._config.mode,
            group=self._run_dir.name[:_MAX_CHARACTERS],
            job_type=kind,
            name=run.name if kind == "strategy" else f"{run.strategy} {run.name}",
            id=self._id_of(run),
            resume="allow",
            reinit="create_new",
            config={**run.settings, "tags": {name.removeprefix("sftkey."): tag for name, tag in run.tags.items()}},
            settings=_settings(),
        )
        opened.define_metric("*", step_metric="step")  # losses and held-out losses have steps of their own
        return opened

    def _id_of(self, run: SinkRun) -> str:
        sent = self._sent()
        if run.key not in sent:
            WANDB_RUNS.write(self._file, sent | {run.key: WandbRun(secrets.token_hex(8))})
        return self._sent()[run.key].id

    def _note(self, run: SinkRun) -> None:
        """Note what the run has."""
        sent, known = self._sent(), run.known
        now = WandbRun(sent[run.key].id, known.next_steps, known.summary, known.is_finished)
        WANDB_RUNS.write(self._file, sent | {run.key: now})

    def _sent(self) -> dict[str, WandbRun]:
        return WANDB_RUNS.read(self._file) if self._file.exists() else {}


def _settings() -> wandb.Settings:
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        init_timeout=_SECONDS,
        finish_timeout=_SECONDS,
        finish_timeout_raises=True,
    )
