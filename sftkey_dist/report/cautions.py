"""What a reader must know of the compared models before believing a difference, or that there is none."""

from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.different_rows import different_rows
from sftkey_dist.report.same_model import same_models


def cautions(comparison: Comparison) -> list[str]:
    """Sentences about models that are the same, and about models that were trained on different rows."""
    return [*same_models(comparison).values(), *different_rows(comparison)]
