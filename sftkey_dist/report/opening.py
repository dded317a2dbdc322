"""The opening of the results page: the first study's answers in a few sentences, a figure and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.evaluation.crossed import CrossedMean, Outcomes, crossed_difference, holm_adjusted
from sftkey_dist.evaluation.over_seeds import mean_over_seeds
from sftkey_dist.report.evidence import Evidence, Result, measure
from sftkey_dist.report.markdown import bold, escaped, table

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class TestedContrast:
    """A contrast of a study, tested over seeds and questions.

    Attributes:
        question: that it answers.
        first: strategy of the first side.
        second: strategy of the second side.
        difference: in accuracy, first minus second.
        p_value: corrected for the number of the study's contrasts (Holm); 1 if nothing differs.
    """

    question: str
    first: str
    second: str
    difference: CrossedMean
    p_value: float

    @property
    def answer(self) -> str:
        """A sentence as Markdown: yes, no, or cannot be told, with the difference in percentage points."""
        low, high = (100 * bound for bound in self.difference.interval)
        found = f"{self.name}: {100 * self.difference.value:+.1f} points ({low:+.1f} to {high:+.1f})"
        if self.p_value >= _SIGNIFICANT:
            return f"{bold('Cannot be told.')} {escaped(found)}, corrected p {self.p_value:.2f}."
        verdict = "Yes." if self.difference.value > 0 else "No, it is worse."
        return f"{bold(verdict)} {escaped(found)}, corrected p {_rounded(self.p_value)}."

    @property
    def name(self) -> str:
        """The difference that was tested."""
        return f"{self.first} - {self.second}"


def opening(study: Evidence, contrasts: Sequence[TestedContrast], figure: Path) -> list[str]:
    """Lines of Markdown.

    Args:
        study: that answers the question of the page.
        contrasts: its tested contrasts, at least one.
        figure: of their differences, relative to the page.
    """
    variant = study.facts.contrasts[0].first.partition("/")[0]
    return [
        "## In short",
        "",
        escaped(study.facts.title),
        "",
        *(f"- {escaped(of.question)} {of.answer}" for of in contrasts),
        "",
        f"![differences in accuracy]({figure.as_posix()})",
        "",
        *_measures(study.results[variant]),
        "",
        f"{_extent(study.results[variant])} Points are percentage points of accuracy; their 95 % intervals speak of "
        "other seeds and other questions.",
        "",
        *([f"What this does not show: {escaped(study.facts.limits.strip())}", ""] if study.facts.limits else []),
    ]


def tested_contrasts(study: Evidence) -> list[TestedContrast]:
    """The contrasts of a study with at least two runs that recorded which questions were answered correctly."""
    found = []
    for contrast in study.facts.contrasts:
        if study.may_know(contrast.first) and study.may_know(contrast.second):
            sides = [_outcomes(study.of(side)) for side in (contrast.first, contrast.second)]
            if (difference := crossed_difference(*sides)) is not None:
                found.append((contrast, difference))
    adjusted = holm_adjusted([1.0 if of.p_value is None else of.p_value for _, of in found])
    return [
        TestedContrast(of.question, _strategy(of.first), _strategy(of.second), difference, p_value)
        for (of, difference), p_value in zip(found, adjusted, strict=True)
    ]


def _outcomes(results: Mapping[int, Result]) -> dict[int, Outcomes]:
    return {seed: result.outcomes for seed, result in results.items() if result.outcomes is not None}


def _strategy(side: str) -> str:
    return side.partition("/")[2]


def _measures(results: Mapping[str, Mapping[int, Result]]) -> list[str]:
    rows = [
        [strategy, *(_share(list(measure(by_seed, name).values())) for name in ("accuracy", "format", "score"))]
        for strategy, by_seed in results.items()
    ]
    return table(["strategy", "accuracy", "format", "score"], rows)


def _share(values: Sequence[float]) -> str:
    return f"{mean_over_seeds(values).value:.3f}"


def _extent(results: Mapping[str, Mapping[int, Result]]) -> str:
    by_seed = next(iter(results.values()))
    return f"{len(by_seed)} seeds, {next(iter(by_seed.values())).n:,} questions each."


def _rounded(p_value: float) -> str:
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"
