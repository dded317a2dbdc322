"""The comparison of strategies: their scores and costs, and paired tests on shared questions."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.crossed import Outcomes
from sftkey_dist.evaluation.paired import AlphaRange, Lead, PairedTest, compare_all, winners_by_alpha
from sftkey_dist.evaluation.swapped.paired import SwapTest, compare_swaps
from sftkey_dist.evaluation.swapped.summary import SwapShares
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.forgetting import Forgetting
from sftkey_dist.report.run_names import names_of_runs
from sftkey_dist.run_dir.artifacts.evaluation import (
    EvaluationRecord,
    Interval,
    Scores,
)
from sftkey_dist.run_dir.artifacts.swapped import SwappedReasoning

BASELINE = "sft"


@dataclass(frozen=True)
class Comparison:
    """A comparison of strategies of one or several runs."""

    rows: tuple[ComparisonRow, ...]

    def __post_init__(self) -> None:
        """
        Raises:
            DataError: there is nothing to compare, or the rows differ in alpha, or only some were guided.
        """
        if not self.rows:
            raise DataError("there is no strategy to compare")
        if len({row.scores.alpha for row in self.rows}) > 1:
            alphas = ", ".join(dict.fromkeys(f"{row.run_dir}: {row.scores.alpha:g}" for row in self.rows))
            raise DataError(f"runs were scored with different alpha ({alphas}); run `sftkey evaluate` with one alpha")
        if len({row.guided for row in self.rows}) > 1:
            guided = ", ".join(f"{row.run_dir} {row.strategy}" for row in self.rows if row.guided)
            raise DataError(f"only some scores are guided ({guided}); run `sftkey evaluate` with one evaluation.guided")

    @property
    def alpha(self) -> float:
        """Weight of accuracy in the score."""
        return self.rows[0].scores.alpha

    @property
    def guided(self) -> bool:
        """Whether decoding was guided."""
        return self.rows[0].guided

    @cached_property
    def labels(self) -> list[str]:
        """Strategy names, prefixed with enough of the run's path to distinguish the runs."""
        if len(self.run_dirs) == 1:
            return [row.strategy for row in self.rows]
        names = dict(zip(self.run_dirs, names_of_runs(list(map(Path, self.run_dirs))), strict=True))
        return [f"{names[row.run_dir]}/{row.strategy}" for row in self.rows]

    @cached_property
    def run_dirs(self) -> list[str]:
        """The run directories of the rows, each once."""
        return list(dict.fromkeys(row.run_dir for row in self.rows))

    @property
    def shares_questions(self) -> bool:
        """Whether all judged rows share questions with the first of them, so that they can be ranked."""
        first, *others = self.judged or [""]
        return not set(others) & set(self.untested_against(first))

    @property
    def judged(self) -> list[str]:
        """The labels of rows of which something was judged."""
        return [label for label, (accuracy, _) in self.measures.items() if not math.isnan(accuracy)]

    @cached_property
    def records(self) -> dict[str, list[EvaluationRecord]]:
        """The records of each row."""
        return {label: row.records() for label, row in zip(self.labels, self.rows, strict=True)}

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Paired tests of all rows that share questions."""
        return compare_all(self.records, self.alpha)

    @cached_property
    def measures(self) -> dict[str, tuple[float, float]]:
        """(accuracy, format) of each row, by which rows are ranked. Unjudged outputs count as wrong.

        If nothing of a row was judged, its accuracy is nan, and it is not ranked.
        """
        return {
            label: (math.nan if math.isnan(of.accuracy) else of.lowest_accuracy, of.format)
            for label, of in zip(self.labels, (row.scores for row in self.rows), strict=True)
        }

    @cached_property
    def best(self) -> list[str]:
        """The label with the highest `lowest_score`, or several that share it; none if nothing was judged."""
        judged = {
            label: row.scores.lowest_score
            for label, row in zip(self.labels, self.rows, strict=True)
            if not math.isnan(row.scores.score)
        }
        highest = max(judged.values(), default=math.nan)
        return [label for label, score in judged.items() if score == highest]

    @cached_property
    def leader(self) -> str | None:
        """The label whose score is above all others' by more than chance; None if there is none."""
        (label, *ties) = self.best or [""]
        leads = self.leads_of(label) if not ties else []
        is_tested = bool(leads) and not self.untested_against(label)
        return label if is_tested and all(lead.is_beyond_interval for lead in leads) else None

    def leads_of(self, label: str) -> list[Lead]:
        """How far a row is ahead of every other one on the questions that both share, the next best first."""
        found = [Lead.of(test, label) for test in self.tests if label in (test.first, test.second)]
        return sorted(found, key=lambda lead: lead.score)

    def close_to(self, label: str) -> list[str]:
        """The rows of which a row cannot be told apart by its score, the next best first."""
        return [lead.over for lead in self.leads_of(label) if not (lead.is_beyond_interval or lead.is_behind)]

    def untested_against(self, label: str) -> list[str]:
        """The rows that share no questions with a row."""
        tested = {label, *(lead.over for lead in self.leads_of(label))}
        return [other for other in self.labels if other not in tested]

    @cached_property
    def forgetting(self) -> dict[str, Forgetting]:
        """What the model of each row has forgotten, for the rows whose runs measure capabilities."""
        found = zip(self.labels, (row.forgetting for row in self.rows), strict=True)
        return {label: of for label, of in found if of.changes}

    @cached_property
    def swapped(self) -> dict[str, SwapShares]:
        """What the answers of each row follow, for the rows whose runs have measured it."""
        return {label: SwapShares.of(found) for label, found in self._swap_results.items()}

    @cached_property
    def swap_tests(self) -> list[SwapTest]:
        """Paired tests of all rows that were measured with the same swapped reasoning."""
        return compare_swaps(self._swap_results)

    @property
    def _swap_results(self) -> dict[str, SwappedReasoning]:
        found = zip(self.labels, (row.swapped for row in self.rows), strict=True)
        return {label: swapped for label, swapped in found if swapped is not None}

    @property
    def plane(self) -> dict[str, tuple[Interval, Interval]]:
        """The intervals of accuracy and format, by label.

        That of an accuracy with unjudged outputs begins where they are all wrong, and ends where they are all right.
        """
        found = zip(self.labels, (row.scores for row in self.rows), strict=True)
        return {label: (_with_unjudged(scores), scores.format_interval) for label, scores in found}

    @property
    def some_unjudged(self) -> bool:
        """Whether some outputs have no verdict, so that accuracies have bounds."""
        return any(row.scores.unjudged for row in self.rows)

    @property
    def alpha_ranges(self) -> list[AlphaRange]:
        """The strategies with the highest score for each alpha; none if rows answered other questions."""
        return winners_by_alpha(self.measures) if self.shares_questions else []

    def against_baseline(self, label: str) -> PairedTest | None:
        """The paired test of a row and its baseline."""
        baseline = self.baseline_of(label)
        return next((test for test in self.tests if {test.first, test.second} == {baseline, label}), None)

    def baseline_of(self, label: str) -> str:
        """The label of the row that a row is compared with: sft of its run, or the first row if there is none."""
        run = label.rpartition("/")[0]
        baseline = f"{run}/{BASELINE}" if run else BASELINE
        return baseline if baseline in self.labels else self.labels[0]

    def to_json(self, folder: Path) -> dict[str, object]:
        """The content of `comparison.json` in a folder."""
        return {
            "rows": [
                row.to_json(folder) | _outcomes_to_json(self.records[label])
                for label, row in zip(self.labels, self.rows, strict=True)
            ],
            "paired_tests": [asdict(test) for test in self.tests],
            "winners_by_alpha": [asdict(alpha_range) for alpha_range in self.alpha_ranges],
            **({"swapped_reasoning_tests": [asdict(test) for test in self.swap_tests]} if self.swapped else {}),
        }


def _with_unjudged(scores: Scores) -> Interval:
    if not scores.unjudged or math.isnan(scores.accuracy):
        return scores.accuracy_interval
    (low, high), (lowest, highest) = scores.accuracy_interval, scores.accuracy_bounds
    return max(0.0, lowest - (scores.accuracy - low)), min(1.0, highest + (high - scores.accuracy))


def _outcomes_to_json(records: list[EvaluationRecord]) -> dict[str, object]:
    outcomes = Outcomes.of(records)
    return {} if outcomes is None else {"outcomes": asdict(outcomes)}


def baseline_among(strategies: Iterable[str]) -> str:
    """The strategy of a run that its others are compared with: sft, or the first one if there is none."""
    names = list(strategies)
    return BASELINE if BASELINE in names else names[0]
