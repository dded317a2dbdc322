"""Cells of tables over the seeds of a study."""

import math
from collections.abc import Mapping

from sftkey_dist.evaluation.crossed import CrossedMean, crossed_difference
from sftkey_dist.evaluation.over_seeds import Mean, PairedMean, mean_over_seeds, paired_over_seeds
from sftkey_dist.report.markdown import Markdown, bold
from sftkey_dist.report.numbers import UNKNOWN, number, with_p_value
from sftkey_dist.report.study.evidence import Result, measure, recorded_outcomes


def paired(first: dict[int, Result], second: dict[int, Result], name: str) -> PairedMean | None:
    """The difference of two strategies in one measure, over the seeds that both have."""
    return paired_over_seeds(measure(first, name), measure(second, name))


def crossed(first: Mapping[int, Result], second: Mapping[int, Result]) -> CrossedMean | None:
    """The difference of two strategies in accuracy, over seeds and questions; see `crossed_difference`."""
    return crossed_difference(recorded_outcomes(first), recorded_outcomes(second))


def over_seeds(results: Mapping[int, Result], name: str) -> Mean:
    """The mean of a measure over the seeds of a strategy."""
    questions = min(result.n for result in results.values())
    return mean_over_seeds(list(measure(results, name).values()), questions=questions)


def mean_cell(mean: Mean) -> str:
    """``0.812 [0.75, 0.86]``, or no interval for a single seed and for seeds with equal values."""
    if mean.number < 2 or math.isnan(mean.value):
        return number(mean.value)
    if not mean.has_interval:
        return f"{mean.value:.3f} in each"
    low, high = mean.interval
    return f"{mean.value:.3f} [{low:.3f}, {high:.3f}]"


def crossed_cell(of: CrossedMean) -> str:
    """A difference over seeds and questions: ``+0.084 [+0.042, +0.126], p 0.001``, bold if it has a sign."""
    if of.p_value is None:
        return f"{of.value:+.3f}"
    value = with_bounds(of)
    return Markdown(f"{bold(value) if of.sign else value}, {with_p_value(of.p_value)}")


def with_bounds(of: CrossedMean) -> str:
    """``+0.084 [+0.042, +0.126]``."""
    low, high = of.interval
    return f"{of.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def difference_cell(found: PairedMean | None) -> str:
    """``+0.041 [-0.021, +0.103], p 0.139, 3 up, 0 down``, as far as there are seeds for it."""
    if found is None:
        return ""
    mean = found.mean
    if math.isnan(mean.value):
        return UNKNOWN
    if mean.number < 2:
        return f"{mean.value:+.3f}"
    if found.p_value is None:
        return f"{mean.value:+.3f} in each of {mean.number}: no spread to test by"
    low, high = mean.interval
    value = f"{mean.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    seeds = f"{found.seeds_higher} up, {found.seeds_lower} down"
    return Markdown(f"{bold(value) if found.sign else value}, {with_p_value(found.p_value)}, {seeds}")
