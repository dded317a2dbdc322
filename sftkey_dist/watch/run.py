"""What is known of a run while a command works on it: its stages and evaluations, and whether it is finished."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.run_dir import EvaluationDir, RunDir, StageDir
from sftkey_dist.run_dir.artifacts.evaluation import GENERATIONS, SCORES, EvaluationScores
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile
from sftkey_dist.run_dir.artifacts.run import DATA_REPORT, EVERY_SETTING, SETTINGS, STRATEGIES, Settings, StrategyEntry
from sftkey_dist.run_dir.artifacts.swapped import CONTINUATIONS
from sftkey_dist.run_dir.artifacts.training import SUMMARY, StageSummary
from sftkey_dist.run_dir.lock import Writer, find_writer
from sftkey_dist.watch.place import require_run
from sftkey_dist.watch.stage import (
    Content,
    StageState,
    StageWatch,
    beginning_of,
    last_sign,
    last_written,
    read_if_there,
)


@dataclass(frozen=True)
class FinishedStage:
    """A finished stage: its title and its summary."""

    title: str
    summary: StageSummary


@dataclass(frozen=True)
class EvaluationState:
    """An evaluation at one moment.

    Attributes:
        strategy: name of the strategy.
        generated: number of prompts that have responses.
        prompts: number of prompts; None if it is unknown.
        scores: the scores; None before they are complete.
        continued: number of answers after swapped reasoning while a command works on the run and some are missing;
            None otherwise.
        last_answer: when anything generated was last written, in seconds since the epoch; None before the first one.
    """

    strategy: str
    generated: int
    prompts: int | None
    scores: EvaluationScores | None
    continued: int | None
    last_answer: float | None

    @property
    def is_open(self) -> bool:
        """Whether anything is still to be generated or judged."""
        return self.scores is None or self.continued is not None


@dataclass(frozen=True)
class RunState:
    """A run at one moment.

    Attributes:
        path: the run directory.
        writer: the command that is working on it; None if there is none.
        finished: finished stages, in the order in which they were finished.
        training: the stage that is being trained; None if there is none.
        stopped: stages that are neither finished nor being trained.
        evaluations: evaluations of the run's strategies, and those in progress.
        is_finished: whether every strategy is trained and evaluated, and no command is working on the run.
    """

    path: Path
    writer: Writer | None
    finished: Sequence[FinishedStage]
    training: StageState | None
    stopped: Sequence[StageState]
    evaluations: Sequence[EvaluationState]
    is_finished: bool


class RunWatch:
    """Reads a run directory again and again: files that have changed, and each line of its journals once."""

    def __init__(self, path: Path) -> None:
        self._path, self._run, self._files = path, RunDir(path), _Files()
        self._stages: dict[Path, StageWatch] = {}
        self._counts: dict[Path, _Count] = {}

    def look(self) -> RunState:
        """The run as it is now.

        Raises:
            ConfigError: there is no run, or it was removed.
            DataError: a file of the run is damaged.
        """
        require_run(self._path)
        writer = find_writer(self._run.lock)
        strategies = self._files.read(STRATEGIES, self._run.strategies) or {}
        training, stopped = self._unfinished(writer)
        return RunState(
            path=self._path,
            writer=writer,
            finished=self._finished(strategies),
            training=training,
            stopped=stopped,
            evaluations=self._evaluations(strategies, writer),
            is_finished=writer is None and self._has_everything(strategies),
        )

    def _finished(self, strategies: Mapping[str, StrategyEntry]) -> list[FinishedStage]:
        titles = {
            self._run.path / stage.path: f"{name} stage {number}/{len(entry.stages)} ({stage.name})"
            for name, entry in strategies.items()
            for number, stage in enumerate(entry.stages, start=1)
            if stage.shared_with is None
        }
        stages = [stage for stage in self._run.stages() if stage.summary.is_file()]
        found = []
        for stage in sorted(stages, key=lambda stage: stage.summary.stat().st_mtime):
            summary = self._files.read(SUMMARY, stage.summary)
            if summary is not None:
                found.append(FinishedStage(titles.get(stage.path) or beginning_of(stage).title, summary))
        return found

    def _unfinished(self, writer: Writer | None) -> tuple[StageState | None, list[StageState]]:
        """The stage that is being trained, which is the last one that wrote anything, and the others."""
        stages = [stage for stage in self._run.stages() if not stage.summary.is_file() and last_sign(stage)]
        stages.sort(key=last_sign)
        beat = writer.beat if writer else 0.0
        states = [self._stages.setdefault(stage.path, StageWatch(stage)).look(beat) for stage in stages]
        if writer is None or not stages or self._was_left(stages[-1]):
            return None, states
        return states[-1], states[:-1]

    def _was_left(self, stage: StageDir) -> bool:
        """Whether something was generated after an unfinished stage last wrote, which then belongs to an old run."""
        files = self._run.path.glob("evaluation/*/generations.jsonl")
        return any(file.stat().st_mtime > last_sign(stage) for file in files)

    def _evaluations(self, strategies: Mapping[str, StrategyEntry], writer: Writer | None) -> list[EvaluationState]:
        """Evaluations of the run's strategies, and, while a command is working, those without complete scores."""
        recorded = {self._run.path / of.evaluation: name for name, of in strategies.items() if of.evaluation}
        found = []
        for folder in sorted(self._run.path.glob("evaluation/*")):
            paths, scores = EvaluationDir(folder), self._complete_scores(folder)
            is_open = scores is None and writer is not None and paths.generations.is_file()
            if is_open or folder in recorded:
                strategy = recorded.get(folder) or folder.name.rpartition("-")[0]
                generated = scores.n if scores else self._count(paths.generations, GENERATIONS)
                continued = self._continued(folder) if writer else None
                last = last_written(paths.generations if continued is None else paths.continuations)
                found.append(EvaluationState(strategy, generated, self._prompts(), scores, continued, last))
        return found

    def _continued(self, folder: Path) -> int | None:
        paths = EvaluationDir(folder)
        if not paths.continuations.is_file() or paths.swapped_reasoning.is_file():
            return None
        return self._count(paths.continuations, CONTINUATIONS)

    def _count(self, journal: Path, kind: Journal[Any]) -> int:
        return self._counts.setdefault(journal, _Count(journal, kind)).catch_up()

    def _complete_scores(self, folder: Path) -> EvaluationScores | None:
        scores = self._files.read(SCORES, EvaluationDir(folder).scores)
        return scores if scores is not None and scores.is_complete else None

    def _prompts(self) -> int | None:
        """Number of prompts of an evaluation. It is too high if only some of several test sets reach the limit."""
        report = self._files.read(DATA_REPORT, self._run.data_report)
        kept = report.test.kept if report and report.test else None
        content = self._files.read(EVERY_SETTING, self._run.config)
        settings = SETTINGS.of(str(self._run.config), content) if content else Settings()
        if kept is None or settings.evaluation.limit is None:
            return kept
        return min(kept, settings.evaluation.limit * max(1, len(settings.data.test)))

    def _has_everything(self, strategies: Mapping[str, StrategyEntry]) -> bool:
        """Whether all strategies of the configuration have complete scores."""
        listed = (self._files.read(EVERY_SETTING, self._run.config) or {}).get("strategies")
        named = [
            each["name"] if isinstance(each, dict) else each for each in (listed if isinstance(listed, list) else [])
        ]
        scored = {
            name
            for name, entry in strategies.items()
            if entry.evaluation and self._complete_scores(self._run.path / entry.evaluation)
        }
        return bool(scored) and {*named, *strategies} <= scored


class _Files:
    """Reads files again only when they have been replaced."""

    def __init__(self) -> None:
        self._found: dict[Path, tuple[tuple[int, int], Any]] = {}

    def read(self, kind: JsonFile[Content], path: Path) -> Content | None:
        """The content of a file; None if there is none.

        Raises:
            DataError: the file is damaged.
        """
        if not path.is_file():
            return None
        status = path.stat()
        version = status.st_ino, status.st_mtime_ns
        if self._found.get(path, (None,))[0] != version:
            self._found[path] = version, read_if_there(kind, path)
        content: Content | None = self._found[path][1]
        return content


class _Count:
    """Counts what a journal has records of."""

    def __init__(self, journal: Path, kind: Journal[Any]) -> None:
        self._tail = kind.tail(journal)
        self._keys: set[object] = set()

    def catch_up(self) -> int:
        with suppress(FileNotFoundError):  # it is being replaced
            self._keys |= {record.key for record in self._tail.new_records()}
        return len(self._keys)
