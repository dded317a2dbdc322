"""Reads the finished runs that a configuration names, and plans how many seeds and questions a comparison needs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sftkey_dist.config.study import Study
from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.power import (
    least_seeds,
    paired_differences,
    questions_needed,
    smallest_difference,
    spread_of,
)
from sftkey_dist.report.comparison import baseline_among
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.power import PairPower, PowerPlan
from sftkey_dist.report.study.runs import is_done

_SEED_COUNTS = (1, 3, 5, 8, 12, 20)
_BySeed = Mapping[int, ComparisonRow]


def plan_run_power(run_dir: Path, difference: float) -> PowerPlan:
    """Plan with a finished run: every strategy against its baseline, with one seed.

    Raises:
        DataError: the run is not finished, or its strategies cannot be compared.
    """
    rows = {row.strategy: {0: row} for row in read_comparison([run_dir]).rows}
    return _plan(str(run_dir), rows, _against_baseline(list(rows)), difference)


def plan_study_power(study: Study, difference: float) -> PowerPlan:
    """Plan with the finished runs of a study: its contrasts or, without any, every strategy against its baseline.

    Raises:
        DataError: no run is finished, or no strategies can be compared.
    """
    rows: dict[str, dict[int, ComparisonRow]] = {}
    for run in study.runs:
        folder = study.folder / run.name
        if is_done(folder):
            for row in read_comparison([folder]).rows:
                rows.setdefault(f"{run.variant}/{row.strategy}", {})[run.seed] = row
    if not rows:
        raise DataError(f"{study.folder}: no run of the study is finished; `sftkey run` with its configuration runs it")
    pairs = [(contrast.first, contrast.second) for contrast in study.settings.contrasts]
    return _plan(str(study.folder), rows, pairs or list(_within_variants(list(rows))), difference)


def _within_variants(names: list[str]) -> Iterator[tuple[str, str]]:
    for variant in dict.fromkeys(name.partition("/")[0] for name in names):
        strategies = [name.partition("/")[2] for name in names if name.startswith(f"{variant}/")]
        for first, second in _against_baseline(strategies):
            yield f"{variant}/{first}", f"{variant}/{second}"


def _against_baseline(strategies: list[str]) -> list[tuple[str, str]]:
    baseline = baseline_among(strategies)
    return [(strategy, baseline) for strategy in strategies if strategy != baseline]


def _plan(place: str, rows: Mapping[str, _BySeed], pairs: list[tuple[str, str]], difference: float) -> PowerPlan:
    """
    Raises:
        DataError: no pair can be used.
    """
    found = [_pair(first, second, rows, difference) for first, second in pairs]
    unused = tuple(one for one in found if isinstance(one, str))
    if len(unused) == len(found):
        reasons = "; ".join(unused) or "there is only one strategy, so that there is nothing to compare"
        raise DataError(f"{place}: no comparison to plan with: {reasons}")
    return PowerPlan(difference, tuple(one for one in found if isinstance(one, PairPower)), unused)


def _pair(first: str, second: str, rows: Mapping[str, _BySeed], difference: float) -> PairPower | str:
    """What a pair tells, or why it tells nothing."""
    mine, other = rows.get(first, {}), rows.get(second, {})
    seeds = [seed for seed in mine if seed in other]
    if not seeds:
        return f"{first} - {second}: no finished run has both with the same seed"
    paired = paired_differences([mine[s].records() for s in seeds], [other[s].records() for s in seeds])
    num_seeds, num_questions = paired.values.shape
    if num_questions < 2:
        return f"{first} - {second}: {num_questions} questions were judged for both with every seed, 2 are needed"
    spread = spread_of(paired.values)
    if spread.is_zero:
        return f"{first} - {second}: the difference is the same for every question, which tells nothing about others"
    planned = _SEED_COUNTS if spread.seeds is not None else _SEED_COUNTS[:1]
    return PairPower(
        first=first,
        second=second,
        num_seeds=num_seeds,
        num_questions=num_questions,
        left_out=paired.left_out,
        difference=float(paired.values.mean()),
        smallest=smallest_difference(spread, num_seeds, num_questions),
        needed={number: questions_needed(spread, number, difference) for number in planned},
        least_seeds=least_seeds(spread, difference),
    )
