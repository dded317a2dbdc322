"""Runs of a study, several in parallel. Each run is a separate command, so a failed run does not affect the others."""

import datetime
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.config.study import Study, StudyRun
from sftkey_dist.config.yaml_text import YamlError, read_yaml, write_yaml
from sftkey_dist.console import console, progress_line
from sftkey_dist.errors import ConfigError, DataError, InterruptedRunError, UserError
from sftkey_dist.files import folder_kept_if_used, open_to_append, write_text_atomically
from sftkey_dist.pipeline.study.progress import StudyProgress
from sftkey_dist.pipeline.study.run_digest import made_of
from sftkey_dist.reading import read_text
from sftkey_dist.report.study.curves import measured_curves, plot_measured
from sftkey_dist.report.study.evidence import Evidence, StudyFacts, VariantFacts, keep_evidence, measure, write_facts
from sftkey_dist.report.study.losses_over_seeds import measured_losses, plot_losses
from sftkey_dist.report.study.opening import TestedContrast, opening, tested_contrasts
from sftkey_dist.report.study.plots import Difference, plot_differences, plot_seeds
from sftkey_dist.report.study.results import StudyFigures, results_page
from sftkey_dist.report.study.runs import done_with, forget_done, note_done
from sftkey_dist.run_dir import RunDir
from sftkey_dist.tracking import make_tracker, tracking_uri

_POLL_SECONDS = 0.5
_RUN_FILE = "run.yaml"
_REMEDY = "restore it from a copy, or set prompt.date to the day on which the study was started and remove it"
_COMMAND = [sys.executable, "-m", "sftkey_dist", "run"]


@dataclass
class _AtWork:
    run: StudyRun
    digest: str
    """Of what it depended on when it was started."""
    process: subprocess.Popen[bytes]
    log_bytes: int
    """Size of its log when it was started."""


def run_study(study: Study, configuration: Sequence[str]) -> list[str]:
    """Execute every run that is not done with its current configuration.

    Args:
        study: the runs.
        configuration: the arguments on the command line, for the record.

    Returns:
        A line for every run that failed, with its last message.
    """
    with folder_kept_if_used(study.folder):
        write_facts(
            study.folder,
            StudyFacts(
                title=study.settings.title,
                about=study.settings.about,
                command=shlex.join(["sftkey", "run", *configuration]),
                seeds=study.settings.seeds,
                variants={
                    name: VariantFacts(variant.about, study.settings.seeds_of(name))
                    for name, variant in study.settings.variants.items()
                },
                contrasts=study.settings.contrasts,
                limits=study.settings.limits,
                curves=study.settings.curves,
            ),
        )
        waiting = [run for run in study.runs if not _is_done(study, run)]
        for run in waiting:  # all before the first starts, so that no page mixes results of two configurations
            forget_done(study.folder / run.name)
        if waiting:
            _make_store(study, waiting[0])
        with progress_line(study.settings.title, len(study.runs)) as line:
            return _run_all(study, waiting, StudyProgress(study, len(study.runs) - len(waiting), line))


def make_results(studies: Sequence[Path], out: Path, keep: Path | None) -> list[Path]:
    """Write the results page of studies, and a figure into each study's folder.

    Args:
        studies: folders of the studies.
        out: Markdown file to write.
        keep: folder to copy the evidence to; None does not copy it.

    Returns:
        The written files, the page first.

    Raises:
        ConfigError: the studies cannot be kept in one folder.
        DataError: a folder does not contain a study, or none of its runs is done.
    """
    if keep is not None:
        kept = _places_to_keep(studies, keep)
        studies = [keep_evidence(study, place) for study, place in zip(studies, kept, strict=True)]
    found = [Evidence.read(study) for study in studies]
    figures = [_figures(study, folder, out) for study, folder in zip(found, studies, strict=True)]
    command = shlex.join(["sftkey", "results", *(_seen_from(out, study) for study in studies)])
    opened, differences = _opening(found, studies, out)
    write_text_atomically(out, results_page(found, opened, figures, command))
    drawn = [out.absolute().parent / path for of in figures for path in of.files]
    return [out, *differences, *drawn]


def _places_to_keep(studies: Sequence[Path], keep: Path) -> list[Path]:
    """The folder for each study, which has the study's name."""
    places = [keep / study.absolute().name for study in studies]
    for study, place in zip(studies, places, strict=True):
        if place.resolve() == study.resolve():
            raise ConfigError(f"--keep {keep}: {study} lies there already; name another folder")
        if places.count(place) > 1:
            raise ConfigError(
                f"--keep {keep}: several studies are called {place.name}; keep each of them in a folder of its own"
            )
    return places


def _figures(study: Evidence, folder: Path, out: Path) -> StudyFigures:
    scores = plot_seeds(_scores_by_seed(study), "score", folder / "scores.svg")
    curves = []
    for place, of in enumerate(measured_curves(study), start=1):
        figure = plot_measured(of, folder / f"curves-{place}.svg") if of.has_points else None
        curves.append((of, figure and Path(_seen_from(out, figure))))
    losses = measured_losses(study)
    drawn = plot_losses(losses, folder / "losses.svg")
    of_losses = (losses, drawn and Path(_seen_from(out, drawn)))
    return StudyFigures(Path(_seen_from(out, scores)), tuple(curves), of_losses)


def _opening(studies: Sequence[Evidence], folders: Sequence[Path], out: Path) -> tuple[list[str], list[Path]]:
    """The opening of a page and its figure; nothing if no study has a contrast that could be tested.

    It is about the study of the most seeds, whose answers are the surest; the first of those that have as many.
    """
    tested = [(study, folder, tested_contrasts(study)) for study, folder in zip(studies, folders, strict=True)]
    study, folder, contrasts = max(tested, key=lambda each: _num_seeds(each[0], each[2]))
    if not contrasts:
        return [], []
    drawn = [Difference(of.name, of.difference.value, of.difference.interval, of.is_found) for of in contrasts]
    figure = plot_differences(drawn, "difference in accuracy", folder / "differences.svg")
    return opening(study, contrasts, Path(_seen_from(out, figure))), [figure]


def _num_seeds(study: Evidence, contrasts: Sequence[TestedContrast]) -> int:
    """Seeds of the contrast that has the most; 0 if there is none."""
    return max((len(study.of(of.contrast.first)) for of in contrasts), default=0)


def _seen_from(page: Path, path: Path) -> str:
    return Path(os.path.relpath(path, page.absolute().parent)).as_posix()


def _scores_by_seed(study: Evidence) -> dict[str, dict[str, list[float]]]:
    return {
        variant: {strategy: list(measure(of, "score").values()) for strategy, of in results.items()}
        for variant, results in study.results.items()
        if results
    }


def _run_all(study: Study, waiting: list[StudyRun], progress: StudyProgress) -> list[str]:
    failed: list[str] = []
    with _ended_with_this_process() as at_work:
        while waiting or at_work:
            while waiting and len(at_work) < study.settings.runs_at_a_time:
                run = waiting.pop(0)
                progress.begin(run)
                try:
                    log_bytes = _log_bytes(study, run)
                    at_work.append(_AtWork(run, made_of(run.config), _start(study, run), log_bytes))
                except UserError as error:  # such as a file of data that is away for a moment
                    failed.append(f"{run.name}: {error}")
                    progress.end(run, has_failed=True)
            progress.show(waiting)
            time.sleep(_POLL_SECONDS)
            for one in [one for one in at_work if one.process.poll() is not None]:
                at_work.remove(one)
                has_failed = one.process.returncode != 0
                if has_failed:
                    failed.append(f"{one.run.name}: {_last_words(study, one)}")
                else:
                    note_done(study.folder / one.run.name, one.digest)
                progress.end(one.run, has_failed=has_failed)
    return failed


@contextmanager
def _ended_with_this_process() -> Iterator[list[_AtWork]]:
    """If this process is stopped, forward the signal to the processes in the list and wait until they have saved."""
    at_work: list[_AtWork] = []
    try:
        yield at_work
    except BaseException as error:
        number = error.signal_number if isinstance(error, InterruptedRunError) else signal.SIGTERM
        console.print(f"waiting for {len(at_work)} runs to save their state", markup=False)
        while not _have_ended(at_work, number):
            pass
        raise


def _have_ended(at_work: Sequence[_AtWork], number: int) -> bool:
    """Forward a signal to runs and wait for them; False if another signal came meanwhile, which they get too."""
    try:
        for one in at_work:
            one.process.send_signal(number)
        for one in at_work:
            one.process.wait()
    except InterruptedRunError:
        return False
    return True


def _make_store(study: Study, run: StudyRun) -> None:
    """Create the tracking store's tables before the first runs start, which would all try to create them.

    Raises:
        ConfigError: the store cannot be used.
    """
    config = _config(study, run)
    make_tracker(config.tracking, config.run_dir.absolute(), RunDir(config.run_dir).tracking)


def _start(study: Study, run: StudyRun) -> "subprocess.Popen[bytes]":
    folder = study.folder / run.name
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / _RUN_FILE
    write_text_atomically(written, write_yaml(_config(study, run).model_dump(mode="json")))
    with open_to_append(_log(study, run)) as log:
        # In its own session, so that Ctrl-C reaches it only once, through this process.
        return subprocess.Popen([*_COMMAND, str(written)], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _config(study: Study, run: StudyRun) -> RunConfig:
    """The run's configuration, with the tracking store and the prompt date that all runs of the study share."""
    return with_what_is_shared(run.config, study.folder, run.config.prompt.date or _date(study))


def with_what_is_shared(config: RunConfig, folder: Path, date: datetime.date) -> RunConfig:
    """The configuration of one of many runs in a folder, with their tracking store and the date of their prompts."""
    tracking = config.tracking
    if tracking.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
        tracking = tracking.model_copy(update={"uri": tracking_uri(tracking, folder.absolute())})
    return config.model_copy(update={"tracking": tracking, "prompt": config.prompt.model_copy(update={"date": date})})


def _date(study: Study) -> datetime.date:
    """The day on which the first run was started, so that the prompts of a resumed study stay the same."""
    for file in (study.folder / run.name / _RUN_FILE for run in study.runs):
        date = _written_date(file) if file.is_file() else None
        if date is not None:
            return date
    return datetime.date.today()


def _written_date(file: Path) -> datetime.date | None:
    """
    Raises:
        DataError: the file is damaged.
    """
    try:
        date = read_yaml(read_text(file, _REMEDY))["prompt"]["date"]
        return None if date is None else datetime.date.fromisoformat(date)
    except KeyError:
        return None
    except (YamlError, TypeError, ValueError) as error:
        raise DataError(f"{file}: damaged ({in_a_line(error)}); {_REMEDY}") from None


def _is_done(study: Study, run: StudyRun) -> bool:
    digest = done_with(study.folder / run.name)
    return digest is not None and digest == made_of(run.config)


def _log(study: Study, run: StudyRun) -> Path:
    return study.folder / run.name / "run.log"


def _log_bytes(study: Study, run: StudyRun) -> int:
    log = _log(study, run)
    return log.stat().st_size if log.is_file() else 0


def _last_words(study: Study, ended: _AtWork) -> str:
    """The error in what a run has written since it was started, or else its last line and how it ended."""
    log, code = _log(study, ended.run), ended.process.returncode
    text = log.read_bytes()[ended.log_bytes :].decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "incomplete:"))]
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{errors[-1] if errors else ': '.join([how, *lines[-1:]])} (see {log})"
