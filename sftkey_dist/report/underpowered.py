"""The smallest difference that a comparison could have seen, and a warning where that is too large."""

from collections.abc import Mapping, Sequence

from sftkey_dist.evaluation.over_seeds import PairedMean
from sftkey_dist.evaluation.paired import PairedTest
from sftkey_dist.evaluation.power import (
    INTERESTING_DIFFERENCE,
    POWER,
    is_underpowered,
    seen_over_questions,
    seen_over_seeds,
)
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.numbers import number

UNCORRECTED = "P-values are not corrected for the number of pairs."
SMALLEST_SEEN = f"the smallest difference in accuracy that the test would see with {100 * POWER:.0f} % power"
"""Meaning of the column."""


def seen_by_seeds(found: PairedMean | None) -> str:
    """The smallest difference in accuracy that a test over seeds could have seen; "" if nothing was tested."""
    smallest = None if found is None else seen_over_seeds(found)
    return "" if smallest is None else number(smallest)


def too_few_seeds(found: Mapping[str, PairedMean | None]) -> str:
    """A warning that names the comparisons over seeds that are underpowered; "" if there are none."""
    return _warning(
        [name for name, one in found.items() if one is not None and is_underpowered(one.p_value, seen_over_seeds(one))]
    )


def too_few_questions(tests: Sequence[PairedTest]) -> str:
    """A warning that names the pairs of strategies that were tested on too few questions; "" if there are none."""
    few = [test for test in tests if is_underpowered(test.accuracy_p_value, seen_over_questions(test))]
    return _warning([f"{test.first} - {test.second}" for test in few])


def seen_in_words(comparison: Comparison) -> str:
    """The smallest differences in accuracy that could have been seen between the best strategy and those that cannot
    be told apart from it; "" if there are none."""
    if len(comparison.best) != 1:
        return ""
    (label,) = comparison.best
    close = set(comparison.close_to(label))
    tests = [test for test in comparison.tests if label in (test.first, test.second)]
    tests = [test for test in tests if {test.first, test.second} & close]
    smallest = max((seen for test in tests if (seen := seen_over_questions(test)) is not None), default=None)
    if smallest is None:
        return ""
    fewest = min(test.n for test in tests)
    return (
        f"With {fewest:,} questions, a difference in accuracy below {number(smallest, digits=2)} is found less than "
        f"{100 * POWER:.0f} % of the time."
    )


def _warning(names: Sequence[str]) -> str:
    if not names:
        return ""
    return (
        f"Underpowered: no difference in accuracy was found for {', '.join(names)}, and a true one of "
        f"{INTERESTING_DIFFERENCE:g} would be found less than {100 * POWER:.0f} % of the time; "
        f"sftkey plan CONFIG --power says how many seeds and questions it takes."
    )
