"""The table of all pairs of a variant's strategies, over seeds and questions."""

from collections.abc import Mapping
from itertools import combinations

from sftkey_dist.evaluation.crossed import SIGNIFICANT, CrossedMean, crossed_difference, holm_of_tested
from sftkey_dist.report.markdown import bold, table
from sftkey_dist.report.numbers import p_value
from sftkey_dist.report.study.evidence import Result, recorded_outcomes
from sftkey_dist.report.study.seed_cells import with_bounds

_MAX_PAIRS = 45
"""More make a table that nobody reads, and a correction that leaves little to find."""


def all_pairs(results: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """Lines with the differences in accuracy, the largest first.

    Args:
        results: by strategy and seed. Without the outcomes of at least two runs with the same questions, there is no
            table, and a sentence stands for one that would be too long.
    """
    found = _differences(results)
    if len(found) > _MAX_PAIRS:
        return [f"The {len(found)} pairs of strategies are too many for a table of all.", ""]
    adjusted = holm_of_tested({pair: of.p_value for pair, of in found.items()})
    rows = [
        [*pair, *_cells(of, adjusted.get(pair))] for pair, of in sorted(found.items(), key=lambda item: -item[1].value)
    ]
    if not rows:
        return []
    return [
        "All pairs in accuracy, over seeds and questions, which both have random effects. The last p-value is corrected"
        " for their number (Holm), and decides what is bold:",
        "",
        *table(["first", "second", "accuracy, first - second", "p", "p, corrected"], rows),
        "",
    ]


def _differences(results: Mapping[str, Mapping[int, Result]]) -> dict[tuple[str, str], CrossedMean]:
    """By pair of strategies, of which the first is right more often."""
    outcomes = {strategy: recorded_outcomes(by_seed) for strategy, by_seed in results.items()}
    found = {}
    for first, second in combinations(outcomes, 2):
        difference = crossed_difference(outcomes[first], outcomes[second])
        if difference is not None and difference.value < 0:
            first, second = second, first
            difference = crossed_difference(outcomes[first], outcomes[second])
        if difference is not None:
            found[first, second] = difference
    return found


def _cells(of: CrossedMean, adjusted: float | None) -> list[str]:
    if of.p_value is None or adjusted is None:
        return [f"{of.value:+.3f}", "", ""]
    value = with_bounds(of)
    return [bold(value) if adjusted < SIGNIFICANT else value, p_value(of.p_value), p_value(adjusted)]
