"""Ask one judge many questions, from actors all over the cluster.

How many actors and threads ask, and how fast questions follow each other, is decided in the driver, so that limits hold
for the cluster as a whole. A killed actor is started again and asks again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ray

from sftkey_dist.endpoint import CUT_OFF, Chat, Pace, Reply
from sftkey_dist.errors import ConfigError, UserError
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.judge.opinion import NOT_ASKED, is_transient
from sftkey_dist.evaluation.judge.reading import Reader, Ruling, why_unreadable

RESTARTS: dict[str, Any] = {"max_restarts": 3, "max_task_retries": 3}
"""Options of every actor that asks."""

_FAILURES_BEFORE_GIVING_UP = 20


@dataclass(frozen=True)
class Answered:
    """A ruling, or why there is none after the last attempt.

    Attributes:
        ruling: what the judge said.
        failure: a short name, or `name: what the server says`.
        notes: in what the judge has to be asked otherwise than others.
    """

    ruling: Ruling | None
    failure: str = ""
    notes: tuple[str, ...] = ()


def read_reply(reply: Reply, reader: Reader) -> Answered:
    """What a reply comes to."""
    ruling = reader(reply.text) if not reply.failure else None
    if ruling is not None:
        return Answered(ruling)
    return Answered(None, reply.failure or (CUT_OFF if reply.cut_off else why_unreadable(reply.text)))


class Judge:
    """One judge, reached through actors until it is closed.

    An actor has ``ask(chats, reader, is_first)``, which returns an `Answered` for each chat.
    """

    def __init__(self, actors: Sequence[Any], most_calls: int, batch_size: int, pace: Pace) -> None:
        self._actors = actors
        self._most_calls = most_calls
        self._batch_size = batch_size
        self._pace = pace
        self._has_answered = False

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def ask(self, chats: Mapping[str, Chat], reader: Reader) -> Iterator[tuple[str, Answered]]:
        """Answers by key, as they come; after too many failures in a row nobody is asked any more.

        The very first question is asked alone, to learn whether anyone answers.

        Raises:
            ConfigError: no server answers at the URL, or it refuses the key or the model.
        """
        batches = enumerate(in_batches(list(chats), self._batch_size))
        under_way: dict[Any, Sequence[str]] = {}
        failures_in_a_row = 0
        while True:
            most = self._most_calls if self._has_answered else 1
            if failures_in_a_row >= max(_FAILURES_BEFORE_GIVING_UP, self._most_calls):
                most = 0
            for number, batch in islice(batches, max(0, most - len(under_way))):
                self._pace.wait()
                actor = self._actors[number % len(self._actors)]
                call = actor.ask.remote([chats[key] for key in batch], reader, not self._has_answered)
                under_way[call] = batch
            if not under_way:
                break
            (done, *_), _ = ray.wait(list(under_way), num_returns=1)
            for key, answered in zip(under_way.pop(done), _result(done), strict=True):
                failures_in_a_row = failures_in_a_row + 1 if is_transient(answered.failure) else 0
                yield key, answered
            self._has_answered = True
        for _, batch in batches:
            for key in batch:
                yield key, Answered(None, NOT_ASKED)


def _result(call: Any) -> list[Answered]:
    try:
        answers: list[Answered] = ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    except ray.exceptions.RayActorError as error:
        raise ConfigError(f"evaluation.judge: the actor that asks died again and again: {error}") from error
    return answers
