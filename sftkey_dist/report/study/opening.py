"""The opening of the results page: a study's answers in a few sentences, a figure and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.config.study import ContrastConfig
from sftkey_dist.evaluation.crossed import SIGNIFICANT, CrossedMean, holm_of_tested
from sftkey_dist.evaluation.over_seeds import mean_over_seeds
from sftkey_dist.report.markdown import bold, escaped, table
from sftkey_dist.report.numbers import number, with_p_value
from sftkey_dist.report.study.evidence import Evidence, Result, measure
from sftkey_dist.report.study.seed_cells import crossed


@dataclass(frozen=True)
class TestedContrast:
    """A contrast of a study, tested over seeds and questions.

    Attributes:
        contrast: the question, and the sides as `variant/strategy`.
        difference: in accuracy, first minus second.
        p_value: corrected for the number of the study's contrasts (Holm); 1 without a test.
        name: of the difference; without the variant if all contrasts are within one.
    """

    contrast: ContrastConfig
    difference: CrossedMean
    p_value: float
    name: str

    @property
    def is_found(self) -> bool:
        """Whether the difference is beyond chance, after the correction."""
        return self.p_value < SIGNIFICANT

    @property
    def answer(self) -> str:
        """A sentence as Markdown: yes, no, or cannot be told, with the difference in percentage points."""
        if self.difference.p_value is None:
            return self._untested
        low, high = (100 * bound for bound in self.difference.interval)
        points = f"{100 * self.difference.value:+.1f} points ({low:+.1f} to {high:+.1f})"
        verdict = (
            "Cannot be told." if not self.is_found else "Yes." if self.difference.value > 0 else "No, it is worse."
        )
        return f"{bold(verdict)} {escaped(f'{self.name}: {points}')}, corrected {with_p_value(self.p_value)}."

    @property
    def _untested(self) -> str:
        if not self.difference.value:
            return f"{bold('No.')} {escaped(self.name)}: not one answer differs."
        right, wrong = self.name.split(" - ") if self.difference.value > 0 else reversed(self.name.split(" - "))
        verdict = "Yes." if self.difference.value > 0 else "No, it is worse."
        return f"{bold(verdict)} {escaped(f'{self.name}: every answer of {right} is right, and none of {wrong}')}."


def opening(study: Evidence, contrasts: Sequence[TestedContrast], figure: Path) -> list[str]:
    """Lines of Markdown.

    Args:
        study: that answers the question of the page.
        contrasts: its tested contrasts, at least one.
        figure: of their differences, relative to the page.
    """
    sides = [side for of in contrasts for side in (of.contrast.first, of.contrast.second)]
    variants = dict.fromkeys(map(_variant, sides))
    shown = {
        strategy if len(variants) == 1 else f"{variant}/{strategy}": by_seed
        for variant in variants
        for strategy, by_seed in study.results[variant].items()
    }
    return [
        "## In short",
        "",
        escaped(study.facts.title),
        "",
        *(f"- {escaped(of.contrast.question)} {of.answer}" for of in contrasts),
        "",
        f"![differences in accuracy]({figure.as_posix()})",
        "",
        *_measures(shown),
        "",
        f"{_extent(list(shown.values()))} Points are percentage points of accuracy. Their 95 % intervals cover the "
        "variation over both seeds and questions.",
        "",
        *([f"What this does not show: {escaped(study.facts.limits.strip())}", ""] if study.facts.limits else []),
    ]


def tested_contrasts(study: Evidence) -> list[TestedContrast]:
    """The contrasts of a study with at least two runs that recorded which questions were answered correctly."""
    found = []
    for contrast, first, second in study.known_contrasts():
        if (difference := crossed(first, second)) is not None:
            found.append((contrast, difference))
    adjusted = holm_of_tested({place: of.p_value for place, (_, of) in enumerate(found)})
    is_one = len({_variant(side) for contrast, _ in found for side in (contrast.first, contrast.second)}) == 1
    return [
        TestedContrast(contrast, difference, adjusted.get(place, 1.0), _name(contrast, without_variant=is_one))
        for place, (contrast, difference) in enumerate(found)
    ]


def _variant(side: str) -> str:
    return side.partition("/")[0]


def _name(contrast: ContrastConfig, *, without_variant: bool) -> str:
    return " - ".join(side.partition("/")[2] if without_variant else side for side in (contrast.first, contrast.second))


def _measures(results: Mapping[str, Mapping[int, Result]]) -> list[str]:
    differ = len({len(by_seed) for by_seed in results.values()}) > 1
    rows = [
        [
            name,
            *(_share(list(measure(by_seed, of).values())) for of in ("accuracy", "format", "score")),
            *([str(len(by_seed))] if differ else []),
        ]
        for name, by_seed in results.items()
    ]
    return table(["strategy", "accuracy", "format", "score", *(["seeds"] if differ else [])], rows)


def _share(values: Sequence[float]) -> str:
    return number(mean_over_seeds(values).value)


def _extent(results: Sequence[Mapping[int, Result]]) -> str:
    """How many seeds and questions there are; a contrast is over the seeds that both of its sides have."""
    seeds, questions = ({*map(len, results)}, {result.n for by_seed in results for result in by_seed.values()})
    return f"{_between(seeds)} seeds, {_between(questions)} questions each."


def _between(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
