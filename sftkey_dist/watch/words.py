"""Words for how fast a stage is and how long it takes, for the progress line and the live view."""

from collections.abc import Sequence

from sftkey_dist.run_dir.artifacts.training import StepTiming

_STEPS_FOR_ESTIMATE = 50
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def speed_in_words(loss: float, tokens_per_second: float) -> str:
    """Loss and throughput of a step."""
    return f"loss {loss:.3f}  {tokens_per_second:,.0f} tok/s"


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 5 min`` or ``1 d 3 h``."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def seconds_left(timings: Sequence[StepTiming], num_steps: int) -> float | None:
    """Estimated time until the last step, with what follows steps, such as a guard; None before the first step."""
    recent = timings[-_STEPS_FOR_ESTIMATE:]
    if not recent:
        return None
    passed = sum(max(timing.seconds, sum(timing.phase_seconds.values())) for timing in recent)
    return passed / len(recent) * max(0, num_steps - recent[-1].step - 1)
