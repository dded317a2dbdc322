"""What a reader must know of the compared models before believing a difference, or that there is none."""

from collections.abc import Iterator

from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.different_rows import different_rows
from sftkey_dist.report.numbers import samples_note
from sftkey_dist.report.same_model import same_models


def cautions(comparison: Comparison) -> list[str]:
    """Sentences about samples, about models that are the same, and about models that were trained on different rows."""
    return [*_samples(comparison), *same_models(comparison).values(), *different_rows(comparison)]


def _samples(comparison: Comparison) -> Iterator[str]:
    """What several outputs for a question say together, and that others were generated otherwise."""
    rows = zip(comparison.labels, (row.scores for row in comparison.rows), strict=True)
    sampled = {label: note for label, scores in rows if (note := samples_note(scores))}
    for label, note in sampled.items():
        yield f"{label}: {note}."
    if sampled and len(sampled) < len(comparison.labels):
        yield "These outputs are samples, those of the other rows are not: compare them with care."
