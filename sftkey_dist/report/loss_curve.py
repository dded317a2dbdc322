"""The loss of each segment in the course of a stage, short enough to keep with the results of a study."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftkey_dist.contract import END_OF_TURN, PROMPT
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.kinds import Measured
from sftkey_dist.run_dir.artifacts.training import METRICS, StepMetrics

_MAX_POINTS = 10
_DIGITS = 4
"""Significant digits that are kept."""


@dataclass(frozen=True)
class LossCurve:
    """Means over equal parts of a stage, of what its training batches measured before they updated the model.

    Attributes:
        steps: [P], the middle of each part, in optimizer steps from the start of the stage.
        nll: [P] nats per token by segment, without tags and end of turn, whether or not the stage trains it.
    """

    steps: tuple[float, ...]
    nll: dict[str, tuple[Measured, ...]]


def read_loss_curve(stage: StageDir) -> LossCurve | None:
    """The curve of a trained stage; None if none of its steps measured segments."""
    measured = [record for record in METRICS.read(stage.metrics) if record.segments]
    if not measured:
        return None
    parts = [part.tolist() for part in np.array_split(np.array(measured), min(_MAX_POINTS, len(measured)))]
    names = dict.fromkeys(name for record in measured for name in record.segments if _is_content(name))
    return LossCurve(
        steps=tuple(round((part[0].step + part[-1].step) / 2, 1) for part in parts),
        nll={name: tuple(_mean_nll(part, name) for part in parts) for name in names},
    )


def _is_content(segment: str) -> bool:
    return "." not in segment and segment not in (PROMPT, END_OF_TURN)


def _mean_nll(records: Sequence[StepMetrics], segment: str) -> float:
    found = [record.segments[segment] for record in records if segment in record.segments]
    tokens = sum(of.tokens for of in found)
    return float(f"{sum(of.nll * of.tokens for of in found) / tokens:.{_DIGITS}g}") if tokens else math.nan
