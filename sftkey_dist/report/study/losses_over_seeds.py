"""The loss of each segment in the course of training, over the seeds of a study: the paper's loss figure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from sftkey_dist.report.loss_curve import LossCurve
from sftkey_dist.report.markdown import escaped
from sftkey_dist.report.study.evidence import Evidence, StageResult
from sftkey_dist.report.study.plots import MAX_BANDS, Band, plot_bands


@dataclass(frozen=True)
class Losses:
    """What a study recorded of its losses.

    Attributes:
        bands: by segment, variant and strategy.
        left_out: a line for every strategy that not all seeds are shown of.
    """

    bands: dict[str, dict[str, dict[str, Band]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def measured_losses(study: Evidence) -> Losses:
    """The losses of a study; empty if its runs are of an older version, or it has more strategies than can be told
    apart."""
    losses = Losses()
    if len({strategy for results in study.results.values() for strategy in results}) > MAX_BANDS:
        return losses
    for variant, results in study.results.items():
        for strategy, by_seed in results.items():
            curves = _alike([_joined(result.stages) for result in by_seed.values()])
            for segment in curves[0].nll if curves else ():
                band = Band.of(curves[0].steps, [curve.nll[segment] for curve in curves])
                losses.bands.setdefault(segment, {}).setdefault(variant, {})[strategy] = band
            if len(curves) < len(by_seed):
                losses.left_out.append(f"{variant}/{strategy} ({len(curves)} of {len(by_seed)} seeds)")
    return losses


def plot_losses(losses: Losses, file: Path) -> Path | None:
    """Draw a row of panels per segment with a column per variant; None, and no file, if there is nothing to draw."""
    if not losses.bands:
        file.unlink(missing_ok=True)
        return None
    panels = {f"nll of {segment} [nats/token]": bands for segment, bands in losses.bands.items()}
    return plot_bands(panels, "optimizer step, stages joined", file)


def losses_section(losses: Losses, figure: Path | None) -> list[str]:
    """Lines of Markdown.

    Args:
        losses: what is shown.
        figure: of them, relative to the page; None without one.
    """
    if figure is None:
        return []
    shown = "; ".join(losses.left_out)
    return [
        f"![loss of each segment]({figure.as_posix()})",
        "",
        "Loss of each segment on the training batches before they update the model, whether or not the stage trains "
        "it: the mean over seeds, from the lowest to the highest."
        + (f" Of these only the seeds are shown that recorded the same steps: {escaped(shown)}." if shown else ""),
        "",
    ]


def _alike(curves: Sequence[LossCurve | None]) -> list[LossCurve]:
    """The curves that are known and have the steps and segments of the first."""
    known = [curve for curve in curves if curve is not None]
    return [curve for curve in known if curve.steps == known[0].steps and curve.nll.keys() == known[0].nll.keys()]


def _joined(stages: Sequence[StageResult]) -> LossCurve | None:
    """The curves of stages, one after the other; None if one is not known."""
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
