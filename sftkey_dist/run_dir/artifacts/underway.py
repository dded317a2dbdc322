"""The files that tell how a stage is getting on while it trains: begun.json and the heartbeats of its ranks."""

from dataclasses import dataclass, field

from sftkey_dist.run_dir.artifacts.kinds import JsonFile, absent_with


@dataclass(frozen=True)
class Beginning:
    """begun.json: what a stage is about to do, written before its workers start.

    Attributes:
        title: strategy, place and name of the stage.
        num_steps: number of optimizer steps.
        seconds_between_beats: seconds between two heartbeats of a rank.
        earlier_events: number of the events that earlier commands have written; None if it is not known.
    """

    title: str
    num_steps: int
    seconds_between_beats: float
    earlier_events: int | None = field(default=None, metadata=absent_with("earlier_events"))


@dataclass(frozen=True)
class Beat:
    """A heartbeat: the step, phase and process id of a rank.

    Attributes:
        step: number of the step, from 0.
        phase: what the rank is doing.
        pid: process id.
        peak_memory_gib: peak memory of the rank; None before its first step.
    """

    step: int
    phase: str
    pid: int
    peak_memory_gib: float | None = field(default=None, metadata=absent_with("peak_memory_gib"))


BEGINNING, BEAT = JsonFile(Beginning), JsonFile(Beat)
