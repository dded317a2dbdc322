"""Chunks of work spread over actors, with a way round one that hangs: its node may be gone, and no other has room."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

_SECONDS_BETWEEN_LOOKS = 1.0
_TIMES_THE_MEDIAN, _LEAST_SECONDS = 4.0, 60.0


@dataclass(frozen=True)
class _Call:
    actor: Any
    number: int
    started: float


def spread(
    actors: Sequence[Any],
    call: Callable[[Any, Any], Any],
    chunks: Sequence[Any],
    least_seconds: float = _LEAST_SECONDS,
) -> Iterator[Any]:
    """The result of each chunk, once, as they come.

    When nothing else is left to do, a chunk that takes several times as long as others did is given to an idle actor
    too, and whichever is first counts.

    Args:
        actors: each works on one chunk at a time.
        call: gives a chunk to an actor, returns the reference to its result.
        chunks: of work.
        least_seconds: a chunk is never given away sooner.
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
        done, _ = ray.wait(list(under_way), num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)
        for reference in done:
            made = under_way.pop(reference)
            idle.append(made.actor)
            if made.number not in finished:
                result = ray.get(reference)
                finished.add(made.number)
                seconds.append(time.monotonic() - made.started)
                yield result


def _late(
    under_way: dict[Any, _Call], finished: set[int], seconds: Sequence[float], least_seconds: float
) -> int | None:
    """The chunk that has taken longest, if that is too long and nobody else has it yet."""
    calls = [made for made in under_way.values() if made.number not in finished]
    numbers = [made.number for made in calls]
    alone = [made for made in calls if numbers.count(made.number) == 1]
    if not alone or not seconds:
        return None
    oldest = min(alone, key=lambda made: made.started)
    patience = max(least_seconds, _TIMES_THE_MEDIAN * statistics.median(seconds))
    return oldest.number if time.monotonic() - oldest.started > patience else None
