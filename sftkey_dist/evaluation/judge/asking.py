"""Sends many questions to one judge, from actors on the whole cluster.

The driver decides how many actors and threads send requests, and at which rate, so that limits hold for the cluster as
a whole. An actor that dies is restarted, and its questions are sent again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ray

from sftkey_dist.endpoint import CUT_OFF, Chat, Pace, Reply
from sftkey_dist.errors import ConfigError, UserError
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.judge.reading import Reader, Ruling, why_unreadable
from sftkey_dist.evaluation.judge.voting import NOT_ASKED, is_transient
from sftkey_dist.interrupts import interruptible

RESTARTS: dict[str, Any] = {"max_restarts": 3, "max_task_retries": 3}
"""Ray options of every actor that asks a judge."""

_FAILURES_BEFORE_GIVING_UP = 20


@dataclass(frozen=True)
class JudgeReply:
    """A parsed reply: a ruling, or why there is none after the last attempt.

    Attributes:
        ruling: what the judge said; None after a failure.
        failure: a short name, or `name: message of the server`.
        notes: request parameters that had to be renamed or left out for this judge.
    """

    ruling: Ruling | None
    failure: str = ""
    notes: tuple[str, ...] = ()


def read_reply(reply: Reply, reader: Reader) -> JudgeReply:
    """Parse a reply into a ruling or a failure."""
    ruling = reader(reply.text) if not reply.failure else None
    if ruling is not None:
        return JudgeReply(ruling)
    return JudgeReply(None, reply.failure or (CUT_OFF if reply.cut_off else why_unreadable(reply.text)))


class Judge:
    """One judge, which is asked through actors until it is closed.

    An actor has ``ask(chats, reader, is_first, is_known_to_answer)``, which returns a `JudgeReply` for each chat. It is
    known to answer once any actor has got a ruling.
    """

    def __init__(self, actors: Sequence[Any], most_calls: int, batch_size: int, pace: Pace) -> None:
        self._actors = actors
        self._most_calls = most_calls
        self._batch_size = batch_size
        self._pace = pace
        self._has_answered = False
        """Whether the first question is over, whatever came of it."""
        self._is_known_to_answer = False

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def ask(self, chats: Mapping[str, Chat], reader: Reader) -> Iterator[tuple[str, JudgeReply]]:
        """Ask all questions and yield the replies by key, in the order of their arrival.

        The first question is sent alone, to find out whether the server answers. After too many consecutive failures
        no further questions are sent.

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
                questions = [chats[key] for key in batch]
                call = actor.ask.remote(questions, reader, not self._has_answered, self._is_known_to_answer)
                under_way[call] = batch
            if not under_way:
                break
            (done, *_), _ = interruptible(ray.wait, list(under_way), num_returns=1)
            for key, reply in zip(under_way.pop(done), _result(done), strict=True):
                failures_in_a_row = failures_in_a_row + 1 if is_transient(reply.failure) else 0
                self._is_known_to_answer |= not reply.failure
                yield key, reply
            self._has_answered = True
        for _, batch in batches:
            for key in batch:
                yield key, JudgeReply(None, NOT_ASKED)


def _result(call: Any) -> list[JudgeReply]:
    try:
        answers: list[JudgeReply] = interruptible(ray.get, call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    except ray.exceptions.RayActorError as error:
        raise ConfigError(f"evaluation.judge: the actor that asks the judge died repeatedly: {error}") from error
    return answers
