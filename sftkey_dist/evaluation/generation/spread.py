"""Distributes chunks of work over actors.

A chunk whose actor hangs is given to another actor too: the node may be lost, with no room to restart the actor.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from sftkey_dist.interrupts import interruptible

_POLL_SECONDS = 1.0
_TIMES_THE_MEDIAN, _MIN_SECONDS = 4.0, 60.0


OnLoss = Callable[[Any, Any, ray.exceptions.RayError], tuple[Any, Any]]
"""Called with an actor, its chunk and why its call failed; returns another actor, and a result for the chunk."""


@dataclass(frozen=True)
class _Call:
    actor: Any
    number: int
    started: float


def spread(
    actors: Sequence[Any],
    call: Callable[[Any, Any], Any],
    chunks: Sequence[Any],
    least_seconds: float = _MIN_SECONDS,
    on_loss: OnLoss | None = None,
) -> Iterator[Any]:
    """Yield the result of each chunk once, in order of completion.

    When no chunk is left to start, a chunk that takes several times as long as the others is also given to an idle
    actor, and the first result counts.

    Args:
        actors: actors, each of which works on one chunk at a time.
        call: sends a chunk to an actor and returns the reference to its result.
        chunks: the chunks of work.
        least_seconds: a chunk is not given to a second actor before this time.
        on_loss: what takes the place of an actor whose call failed, and of its result. Default: the error is raised.
    """
    waiting, idle, under_way = deque(range(len(chunks))), list(actors), dict[Any, _Call]()
    finished, seconds = set[int](), list[float]()

    def give(number: int) -> None:
        actor = idle.pop()
        under_way[call(actor, chunks[number])] = _Call(actor, number, time.monotonic())

    while len(finished) < len(chunks):
        while idle and waiting:
            give(waiting.popleft())
        if idle and (late := _late(under_way, finished, seconds, least_seconds)) is not None:
            give(late)
        done, _ = interruptible(ray.wait, list(under_way), num_returns=1, timeout=_POLL_SECONDS)
        for reference in done:
            made = under_way.pop(reference)
            if made.number in finished:
                idle.append(made.actor)
            else:
                actor, result = _result(reference, made.actor, chunks[made.number], on_loss)
                idle.append(actor)
                finished.add(made.number)
                seconds.append(time.monotonic() - made.started)
                yield result


def _result(reference: Any, actor: Any, chunk: Any, on_loss: OnLoss | None) -> tuple[Any, Any]:
    """The actor that can work on another chunk, and the result."""
    try:
        return actor, interruptible(ray.get, reference)
    except ray.exceptions.RayError as error:
        if on_loss is None:
            raise
        return on_loss(actor, chunk, error)


def _late(
    under_way: dict[Any, _Call], finished: set[int], seconds: Sequence[float], least_seconds: float
) -> int | None:
    """The chunk that has taken longest, if it is overdue and only one actor works on it."""
    calls = [made for made in under_way.values() if made.number not in finished]
    numbers = [made.number for made in calls]
    alone = [made for made in calls if numbers.count(made.number) == 1]
    if not alone or not seconds:
        return None
    oldest = min(alone, key=lambda made: made.started)
    patience = max(least_seconds, _TIMES_THE_MEDIAN * statistics.median(seconds))
    return oldest.number if time.monotonic() - oldest.started > patience else None
