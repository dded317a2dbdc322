"""The loss of each segment in the course of training, over the seeds of a study: the paper's loss figure."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from sftkey_dist.report.evidence import Evidence, Result, StageResult
from sftkey_dist.report.loss_curve import LossCurve
from sftkey_dist.report.study_plots import MOST_BANDS, Band, plot_bands

_Panels = dict[str, dict[str, dict[str, Band]]]


def plot_losses(study: Evidence, file: Path) -> Path | None:
    """Draw a row of panels per segment with a column per variant; None if there is nothing to draw.

    A panel with many strategies could not be read. Such studies, and runs of older versions, which have recorded no
    losses, are left out.
    """
    panels: _Panels = {}
    for variant, results in study.results.items():
        if len(results) > MOST_BANDS:
            return None
        for strategy, by_seed in results.items():
            for segment, band in _bands(by_seed).items():
                panels.setdefault(f"nll of {segment} [nats/token]", {}).setdefault(variant, {})[strategy] = band
    return plot_bands(panels, "optimizer step, stages joined", file) if panels else None


def losses_section(figure: Path | None) -> list[str]:
    """Lines of Markdown.

    Args:
        figure: relative to the page; None without one.
    """
    if figure is None:
        return []
    return [
        f"![loss of each segment]({figure.as_posix()})",
        "",
        "Loss of each segment on the training batches before they update the model, whether or not the stage trains "
        "it: the mean over seeds, from the lowest to the highest.",
        "",
    ]


def _bands(by_seed: Mapping[int, Result]) -> dict[str, Band]:
    """A strategy's bands by segment, over the seeds that recorded the losses of all stages."""
    curves = [joined for result in by_seed.values() if (joined := _joined(result.stages)) is not None]
    if not curves:
        return {}
    return {
        segment: Band.of(curves[0].steps, [curve.nll[segment] for curve in curves])
        for segment in curves[0].nll
        if all(segment in curve.nll and curve.steps == curves[0].steps for curve in curves)
    }


def _joined(stages: Sequence[StageResult]) -> LossCurve | None:
    """The curves of stages, one after the other."""
    curves = [stage.losses for stage in stages if stage.losses is not None]
    if len(curves) < len(stages):
        return None
    offsets = [0, *accumulate(stage.steps for stage in stages)]
    return LossCurve(
        steps=tuple(offset + step for offset, curve in zip(offsets, curves, strict=False) for step in curve.steps),
        nll={
            name: tuple(value for curve in curves for value in curve.nll[name])
            for name in curves[0].nll
            if all(name in curve.nll for curve in curves)
        },
    )
