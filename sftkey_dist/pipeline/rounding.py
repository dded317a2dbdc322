"""Describes how much of a stage's update is left after rounding to the published precision."""

from collections.abc import Iterator, Sequence

from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.run_dir.artifacts.training import StageSummary, read_summary

_MOSTLY_LOST = 0.5
"""Share of the update below which a warning says that rounding has removed most of it."""


def stages_in_words(plan: Sequence[PlannedStage]) -> Iterator[str]:
    """`rounding_in_words` for the trained stages of a strategy."""
    for planned in plan:
        if planned.is_trained:
            summary = read_summary(planned.directory)
            yield from (f"stage {planned.stage.name}: {line}" for line in rounding_in_words(summary))


def rounding_in_words(summary: StageSummary) -> Iterator[str]:
    """A line about what a stage changed, and a warning if rounding removed most of it."""
    rounding = summary.rounding
    if rounding is None or not rounding.num_weights:
        return
    changed = f"{rounding.num_changed:,} of {rounding.num_weights:,} stored weights changed"
    share, precision = rounding.surviving_share, rounding.precision
    if share is None or precision == "float32":
        yield changed
        return
    yield f"{changed}; {share:.0%} of the update is left after rounding to {precision}{_gain(summary, share)}"
    if share < _MOSTLY_LOST:
        yield (
            f"warning: rounding to {precision} removes {1 - share:.0%} of what this stage "
            f"learned from the published model: its updates are smaller than half a step of that precision. Train "
            f"more steps or at a higher learning rate, or publish float32 (training.export_precision=float32)"
        )


def _gain(summary: StageSummary, share: float) -> str:
    """The gain, and its estimate before rounding: gain / share, since the gain of a small update is proportional."""
    if summary.gain is None or share <= 0:
        return ""
    return f"; held-out loss fell by {summary.gain:.4g}, before rounding by about {summary.gain / share:.4g}"
