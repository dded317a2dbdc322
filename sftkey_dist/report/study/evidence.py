"""The results of a study, read from the `comparison.json` of its runs and small enough to keep in a repository."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from sftkey_dist.config.study import ContrastConfig, CurvesConfig, run_name
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.crossed import Outcomes
from sftkey_dist.evaluation.swapped.summary import SwapShare, SwapShares
from sftkey_dist.files import copy_atomically, make_folder
from sftkey_dist.report.loss_curve import LossCurve
from sftkey_dist.report.study.runs import done_with, forget_done, is_done, note_done
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.evaluation import Agreement, Interval, composite
from sftkey_dist.run_dir.artifacts.kinds import JsonFile, Measured, absent_with
from sftkey_dist.run_dir.artifacts.run import ENVIRONMENT
from sftkey_dist.run_dir.artifacts.training import GuardSummary

_ENVIRONMENT = "environment.json"
_COMPARISON = "comparison.json"
_STUDY_REMEDY = "`sftkey run` with the study's configuration renews it"
_RUN_REMEDY = "remove done.json beside it and `sftkey run` the study again"


@dataclass(frozen=True)
class VariantFacts:
    """Description and seeds of a variant."""

    about: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class StudyFacts:
    """What a study is.

    Attributes:
        title: heading.
        about: paragraph.
        command: that makes it.
        seeds: of its runs; a variant may have fewer.
        variants: by name.
        contrasts: to be drawn.
        limits: what the study does not show.
        curves: figures of differences along an axis.
    """

    title: str
    about: str
    command: str
    seeds: tuple[int, ...]
    variants: dict[str, VariantFacts]
    contrasts: tuple[ContrastConfig, ...]
    limits: str = ""
    curves: tuple[CurvesConfig, ...] = ()

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Variant and seed of every run, seed by seed."""
        return [(name, seed) for seed in self.seeds for name in self.variants if seed in self.variants[name].seeds]


@dataclass(frozen=True)
class StageResult:
    """What a stage cost in one run, which other strategy trained it, what its guard kept, and how its losses fell."""

    name: str
    steps: int
    train_seconds: float
    tokens: int
    loss_tokens: int
    shared_with: str | None = field(default=None, metadata=absent_with("shared_with"))
    guard: GuardSummary | None = field(default=None, metadata=absent_with("guard"))
    losses: LossCurve | None = field(default=None, metadata=absent_with("losses"))


@dataclass(frozen=True)
class CapabilityDifference:
    """What the model of a strategy scores in a task, minus what the base model does."""

    task: str
    metric: str
    difference: Measured


@dataclass(frozen=True)
class Result:
    """A strategy of a run: measures in [0, 1] over ``n`` questions, agreements of raters, costs, and further measures.

    Unjudged outputs count as wrong here, so that missing verdicts cannot improve a result.
    """

    n: int
    accuracy: Measured
    format: float
    score: Measured
    alpha: float
    dataset: str
    agreement: dict[str, Agreement]
    stages: tuple[StageResult, ...]
    guided: bool | None = field(default=None, metadata=absent_with("guided"))
    capabilities: tuple[CapabilityDifference, ...] | None = field(default=None, metadata=absent_with("capabilities"))
    outcomes: Outcomes | None = field(default=None, metadata=absent_with("outcomes"))
    swapped_reasoning: SwapShares | None = field(default=None, metadata=absent_with("swapped_reasoning"))


@dataclass(frozen=True, kw_only=True)
class ComparedRow(Result):
    """A row of comparison.json, as far as it is read back. Runs of older versions have no bounds and no outcomes."""

    strategy: str
    unjudged: int = 0
    accuracy_bounds: Interval | None = None

    @property
    def result(self) -> Result:
        """The result with all unjudged outputs counted as wrong, unless nothing was judged."""
        known = Result(**{of_result.name: getattr(self, of_result.name) for of_result in fields(Result)})
        if self.accuracy_bounds is None or not 0 < self.unjudged < self.n:
            return known
        accuracy, _ = self.accuracy_bounds
        return replace(known, accuracy=accuracy, score=composite(accuracy, self.format, self.alpha))


@dataclass(frozen=True)
class RecordedComparison:
    """comparison.json, as far as it is read back."""

    rows: tuple[ComparedRow, ...]


FACTS, COMPARISON = JsonFile(StudyFacts, _STUDY_REMEDY), JsonFile(RecordedComparison, _RUN_REMEDY)


@dataclass(frozen=True)
class Evidence:
    """A study's results.

    Attributes:
        name: name of its folder.
        facts: description of the study.
        results: results by variant, strategy and seed.
        environment: packages and machines of its runs, with all values if runs differ.
        missing: names of runs that are not done.
    """

    name: str
    facts: StudyFacts
    results: dict[str, dict[str, dict[int, Result]]]
    environment: dict[str, str]
    missing: tuple[str, ...]

    def is_guided(self, variant: str) -> bool:
        """Whether a variant was evaluated with guided decoding, which keeps the format of any model."""
        return any(result.guided for by_seed in self.results[variant].values() for result in by_seed.values())

    def note_on(self, variant: str) -> str:
        """What must stand beside the scores of a variant; "" if it is nothing."""
        return ", guided decoding" if self.is_guided(variant) else ""

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        """Read a study's folder, or a copy that `keep_evidence` made.

        Raises:
            DataError: the folder has no study, it is of another version, or none of its runs is done.
        """
        if not RunDir(folder).study.is_file():
            if RunDir(folder).strategies.is_file():
                raise DataError(
                    f"{folder}: a run, and not a study of several runs; `sftkey compare {folder}` reports it"
                )
            raise DataError(
                f"{folder}: no study there (study.json is missing); run `sftkey run` with its configuration"
            )
        facts = FACTS.read(RunDir(folder).study)
        results: dict[str, dict[str, dict[int, Result]]] = {name: {} for name in facts.variants}
        environments, missing = [], []
        for variant, seed in facts.runs:
            run = folder / run_name(variant, seed)
            if not is_done(run):
                missing.append(run_name(variant, seed))
                continue
            for row in COMPARISON.read(run / _COMPARISON).rows:
                results[variant].setdefault(row.strategy, {})[seed] = row.result
            environments.append(ENVIRONMENT.read(run / _ENVIRONMENT))
        if not environments:
            raise DataError(f"{folder}: none of the study's runs is done")
        return cls(folder.absolute().name, facts, results, _joined(environments), tuple(missing))

    def known_contrasts(self) -> Iterator[tuple[ContrastConfig, dict[int, Result], dict[int, Result]]]:
        """The contrasts that do not wait for a run, each with the results of both sides by seed.

        Raises:
            DataError: a contrast names a strategy that does not exist.
        """
        for contrast in self.facts.contrasts:
            if self.may_know(contrast.first) and self.may_know(contrast.second):
                yield contrast, self.of(contrast.first), self.of(contrast.second)

    def may_know(self, name: str) -> bool:
        """Whether ``variant/strategy`` has results, or cannot get any from the missing runs."""
        variant, _, strategy = name.partition("/")
        return strategy in self.results[variant] or not any(run.startswith(f"{variant}/") for run in self.missing)

    def of(self, name: str, key: str = "contrasts") -> dict[int, Result]:
        """Results by seed of ``variant/strategy``.

        Args:
            name: the variant and the strategy.
            key: of the study's settings that names it.

        Raises:
            DataError: the strategy does not exist.
        """
        variant, _, strategy = name.partition("/")
        if strategy not in self.results[variant]:
            known = ", ".join(self.results[variant]) or "none that is done"
            raise DataError(f"{self.name}: {key}: {name}: variant {variant} has the strategies {known}")
        return self.results[variant][strategy]


def measure(results: Mapping[int, Result], name: str) -> dict[int, float]:
    """One measure by seed."""
    return {seed: float(getattr(result, name)) for seed, result in results.items()}


def capability_differences(results: Mapping[int, Result]) -> dict[str, dict[int, float]]:
    """The difference from the base model by task with its metric, and by seed."""
    found: dict[str, dict[int, float]] = {}
    for seed, result in results.items():
        for of in result.capabilities or ():
            found.setdefault(f"{of.task} {of.metric}", {})[seed] = of.difference
    return found


def swapped_shares(results: Mapping[int, Result], name: str) -> dict[int, SwapShare]:
    """One share of the answers after swapped reasoning by seed, of the runs that measured it."""
    found = {seed: result.swapped_reasoning for seed, result in results.items()}
    shares = {seed: of.by_name[name] for seed, of in found.items() if of is not None}
    return {seed: share for seed, share in shares.items() if share.n}


def recorded_outcomes(results: Mapping[int, Result]) -> dict[int, Outcomes]:
    """By seed, which questions were answered correctly; empty unless every run recorded it and has a verdict.

    A test of some of the seeds would stand beside one of all seeds, and say something else.
    """
    found = {
        seed: result.outcomes
        for seed, result in results.items()
        if result.outcomes is not None and not math.isnan(result.accuracy)
    }
    return found if len(found) == len(results) else {}


def write_facts(folder: Path, facts: StudyFacts) -> None:
    """Write the description of a study to its folder."""
    FACTS.write(RunDir(folder).study, facts)


def keep_evidence(study: Path, kept: Path) -> Path:
    """Copy the evidence of a study, and which of its runs are done, to another folder, and return that folder.

    If the copy is put in the study's place, the study resumes from it. Of comparisons, only what is read back is kept.
    """
    evidence = Evidence.read(study)
    make_folder(kept)
    copy_atomically(RunDir(study).study, RunDir(kept).study)
    for variant, seed in evidence.facts.runs:
        run, target = RunDir(study / run_name(variant, seed)), kept / run_name(variant, seed)
        digest = done_with(run.path)
        forget_done(target)  # what is there may be of an earlier configuration
        if digest is not None:
            make_folder(target)
            COMPARISON.write(target / _COMPARISON, COMPARISON.read(run.comparison))
            if run.environment.is_file():
                copy_atomically(run.environment, target / run.environment.name)
            note_done(target, digest)
    return kept


def _joined(environments: list[dict[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(name for environment in environments for name in environment)
    return {name: ", ".join(dict.fromkeys(str(e[name]) for e in environments if name in e)) for name in names}
