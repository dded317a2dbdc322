"""Agreement between two raters: judges, checks or human labels."""

from collections.abc import Iterable

from sftkey_dist.evaluation.statistics import cohen_kappa
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.evaluation import Agreement

JUDGE_AND_CHECK = "judge_and_check"
"""Key of the agreement between judges and deterministic checks in scores.json."""


def agreement_of(verdicts: Iterable[tuple[Verdict, Verdict]]) -> Agreement | None:
    """Agreement over the answers on which both raters have a verdict; None if there are no such answers."""
    both = [pair for pair in verdicts if Verdict.UNJUDGED not in pair]
    if not both:
        return None
    first, second = zip(*both, strict=True)
    return Agreement(len(both), sum(a == b for a, b in both) / len(both), cohen_kappa(first, second))
