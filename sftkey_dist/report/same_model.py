"""Which strategies ended with a model that another one, or an earlier stage, has too, and why."""

from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.numbers import listed
from sftkey_dist.report.stage_cost import StageCost


def same_models(comparison: Comparison) -> dict[str, str]:
    """A sentence for every row whose model is not its own, by label: whose weights it has, and why."""
    rows = dict(zip(comparison.labels, comparison.rows, strict=True))
    found = {}
    for place, (label, row) in enumerate(rows.items()):
        equal = [other for other, its in rows.items() if other != label and _have_equal_weights(row, its)]
        if row.stages[-1].is_unchanged:
            own = [other for other in equal if not rows[other].stages[-1].is_unchanged]
            found[label] = f"{label} has the same weights as {_origin(row, own or equal)}: {_reason(row.stages[-1])}."
        elif earlier := [other for other in comparison.labels[:place] if other in equal]:
            found[label] = f"{label} has the same weights as {listed(earlier)}: their exported files are equal."
    return found


def kept_in_words(stage: StageCost) -> str:
    """Which model the guard of a stage kept; "" without a guard."""
    return "" if stage.guard is None else f"the guard of stage {stage.name} {stage.guard.in_words(stage.steps)}"


def _have_equal_weights(row: ComparisonRow, other: ComparisonRow) -> bool:
    digest = row.stages[-1].weights
    return digest is not None and digest == other.stages[-1].weights


def _origin(row: ComparisonRow, equal: list[str]) -> str:
    if equal:
        return listed(equal)
    changed = [stage.name for stage in row.stages if not stage.is_unchanged]
    return f"its stage {changed[-1]}" if changed else "the base model"


def _reason(stage: StageCost) -> str:
    if stage.guard is not None and stage.guard.kept_the_start:
        return kept_in_words(stage)
    return f"stage {stage.name} changed no stored weight"
