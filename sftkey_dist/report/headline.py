"""The result of a comparison in a sentence or two, which names a winner only beyond the interval of its lead."""

from sftkey_dist.evaluation.paired import Lead
from sftkey_dist.evaluation.statistics import Interval
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.numbers import listed, number


def headline(comparison: Comparison) -> str:
    """Which strategy is ahead, by how much, and of which others it cannot be told apart.

    Returns:
        Plain text with the names of strategies as they are; "" if there is nothing to compare.
    """
    best = comparison.best
    if len(comparison.rows) < 2 or not best:
        return ""
    if len(best) > 1:
        return f"{listed(best)} have the same score, {_score(comparison, best[0])}."
    (label,) = best
    untested = [other for other in comparison.untested_against(label) if other in comparison.judged]
    others = f" {listed(untested)} answered other questions." if untested else ""
    return _of_one(comparison, label) + others


def _of_one(comparison: Comparison, label: str) -> str:
    """How far the row with the highest score is ahead of those that share questions with it."""
    leads = comparison.leads_of(label)
    close = comparison.close_to(label)
    highest = f"{label} has the highest score, {_score(comparison, label)}"
    if ahead := [lead.over for lead in leads if lead.is_behind]:
        return (
            f"{highest}, but {listed(ahead)} scored higher on the questions that were judged for both: the order "
            f"depends on outputs that are unjudged or of other questions."
        )
    if not leads:
        return f"{highest}."
    if close:
        return f"{highest}, but it cannot be told apart from {listed(close)}: a lead may be chance."
    over = "" if len(leads) == 1 else f" over {leads[0].over}"
    led = listed([lead.over for lead in leads])
    return f"{label} scores higher than {led}, {_by(comparison, leads[0], over)}"


def _by(comparison: Comparison, lead: Lead, over: str) -> str:
    """How far ahead of the next best a strategy is, and whether it keeps the format."""
    kept = _row(comparison, lead.label)
    accuracy = ""
    if lead.accuracy_interval[0] > 0:
        accuracy = f" It is right more often by {_points(lead.accuracy, lead.accuracy_interval)}."
    return (
        f"by {_points(lead.score, lead.score_interval)}{over}.{accuracy} It keeps the format in "
        f"{_percent(kept.scores.format):g} % of its outputs."
    )


def _percent(share: float) -> float:
    """Percentage with one decimal, which is 100 for all alone."""
    return round(100 * share, 1) if round(100 * share, 1) < 100 or share == 1 else 99.9


def _score(comparison: Comparison, label: str) -> str:
    """The score that strategies are ranked by, in which unjudged outputs count as wrong."""
    return number(_row(comparison, label).scores.lowest_score)


def _row(comparison: Comparison, label: str) -> ComparisonRow:
    return comparison.rows[comparison.labels.index(label)]


def _points(difference: float, interval: Interval) -> str:
    low, high = interval
    return f"{100 * difference:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
