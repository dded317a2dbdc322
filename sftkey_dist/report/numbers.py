"""Formatting of numbers in tables. Unknown values are shown as a dash."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sftkey_dist.run_dir.artifacts.evaluation import Scores
from sftkey_dist.run_dir.artifacts.training import SampleYield

if TYPE_CHECKING:
    from sftkey_dist.evaluation.statistics import Interval

UNKNOWN = "\N{EN DASH}"
_SIGNIFICANT = 0.05
GUIDED = "guided decoding: an output that ends keeps the format by construction, so that only accuracy compares models"
RANKED_BY = "strategies are ranked by the lower bound of accuracy, all unjudged outputs counted as wrong"


def number(value: float | None, digits: int = 3) -> str:
    """``0.812``, or a dash for None and nan."""
    return UNKNOWN if value is None or math.isnan(value) else f"{_rounded(value, digits):,.{digits}f}"


def _rounded(value: float, digits: int) -> float:
    """The rounded value, without the sign of a negative zero."""
    return round(value, digits) + 0.0


def in_millions_or_billions(count: int) -> str:
    """``0.119 M``, ``135 M`` or ``7.62 B``, as sizes of models are told."""
    return f"{count / 1e9:.3g} B" if count >= 999.5e6 else f"{count / 1e6:.3g} M"


def with_interval(value: float, interval: "Interval") -> str:
    """``0.812 [0.75, 0.86]``."""
    return UNKNOWN if math.isnan(value) else f"{_rounded(value, 3):.3f} [{bounds(interval)}]"


def bounds(interval: "Interval", separator: str = ", ") -> str:
    """``0.75, 0.86``; with three digits where two would hide on which side of 0 a bound is."""
    digits = 3 if any(bound and not round(bound, 2) for bound in interval) else 2
    return separator.join(f"{_rounded(bound, digits):.{digits}f}" for bound in interval)


def bounds_note(scores: Scores) -> str:
    """The bounds of accuracy while outputs are unjudged, in words."""
    low, high = scores.accuracy_bounds
    return f"accuracy lies between {low:.3f} and {high:.3f}, {scores.unjudged} outputs are unjudged"


def samples_note(scores: Scores) -> str:
    """What several outputs for each question say together, in words; "" with one output for each."""
    if scores.majority_accuracy is None:
        return ""
    least = ", ".join(f"one of {k} in {value:.3f}" for k, value in scores.pass_at_k.items() if k != "1")
    return (
        f"n counts sampled outputs, several for each question; the majority vote is right in "
        f"{scores.majority_accuracy:.3f} of the questions, at least {least} (pass@k)"
    )


def unjudgeable_note(scores: Scores) -> str:
    """The number of outputs whose text made the judge or the check fail, by the name of the failure, in words."""
    counts = ", ".join(f"{name}: {count}" for name, count in scores.unjudgeable.items())
    return f"incorrect, as their text made the judge or the check fail: {counts}"


def yield_note(found: SampleYield) -> str:
    """How many rows have an accepted response of the model's own, and what became of all samples, in words."""
    others = "keep their references" if found.otherwise == "reference" else "are left out"
    return (
        f"{found.accepted_rows:,} of {found.rows:,} rows ({found.share:.1%}) have an accepted response of the model's "
        f"own, the others {others}; {found.samples:,} samples: {counted(found.outcomes)}"
    )


def listed(names: Sequence[str]) -> str:
    """``sft``, ``sft and sft-tag``, ``sft, sft-tag and key-tag``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def counted(numbers: Mapping[str, int]) -> str:
    """``accepted: 17, wrong_answer: 18``."""
    return ", ".join(f"{name}: {count:,}" for name, count in numbers.items())


def p_value(value: float | None, digits: int = 4) -> str:
    """``0.0123``, ``< 0.0001``."""
    smallest = 10.0**-digits
    if value is not None and value < _SIGNIFICANT <= round(value, digits):  # 0.0496 is not 0.050
        return f"{math.floor(value / smallest) * smallest:.{digits}f}"
    return UNKNOWN if value is None else f"{value:.{digits}f}" if value >= smallest else f"< {smallest:.{digits}f}"


def with_p_value(value: float) -> str:
    """``p 0.012``, ``p < 0.001``."""
    return f"p {p_value(value, digits=3)}"
