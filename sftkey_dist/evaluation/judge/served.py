"""A judge behind an OpenAI-compatible server, asked by threads of a few actors.

Apart from the local judge, whose imports take ten times as long as an actor's start.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import ray

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.endpoint import Chat, Endpoint, Pace, endpoint_key, require_server
from sftkey_dist.evaluation.judge.asking import RESTARTS, Answered, Judge
from sftkey_dist.evaluation.judge.reading import Reader

_THREADS_PER_ACTOR = 32
_WAITING_PER_ACTOR = 4
"""Questions that lie ready for the next thread: the way from the driver takes a few milliseconds."""
_UNREADABLE_ATTEMPTS = 3
_WORTH_ASKING_AGAIN = frozenset({"unreadable_reply", "no_completion", "empty_reply"})


def open_served_judge(config: EndpointConfig) -> Judge:
    """Start the actors; a Ray cluster must be connected."""
    key = endpoint_key(config)
    number = math.ceil(config.concurrency / _THREADS_PER_ACTOR)
    threads = [(config.concurrency + i) // number for i in range(number)]  # as many in all as may ask at a time
    options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", **RESTARTS}
    actors = [
        _EndpointActor.options(max_concurrency=count, **options).remote(config, key)  # type: ignore[attr-defined]
        for count in threads
    ]
    waiting = number * _WAITING_PER_ACTOR
    return Judge(actors, config.concurrency + waiting, 1, Pace(config.requests_per_minute))


def asked(ask: Callable[[], tuple[str, str]], reader: Reader) -> Answered:
    """A reply that cannot be read is asked for again; what the client has retried already is not.

    Args:
        ask: returns a text and a failure, one of them empty.
        reader: makes a ruling of a text.
    """
    failure = ""
    for _ in range(_UNREADABLE_ATTEMPTS):
        text, failure = ask()
        ruling = reader(text) if not failure else None
        if ruling is not None:
            return Answered(ruling)
        failure = failure or "unreadable_reply"
        if failure not in _WORTH_ASKING_AGAIN:
            break
    return Answered(None, failure)


@ray.remote
class _EndpointActor:
    def __init__(self, config: EndpointConfig, key: str) -> None:
        self._config = config
        self._endpoint = Endpoint(config, key)

    def ask(self, chats: Sequence[Chat], reader: Reader, is_first: bool) -> list[Answered]:
        return [asked(partial(self._ask, chat, is_first), reader) for chat in chats]

    def _ask(self, chat: Chat, is_first: bool) -> tuple[str, str]:
        reply = self._endpoint.ask(chat)
        if is_first:
            require_server(self._config, reply)
        return reply.text, "cut_off_at_max_tokens" if reply.cut_off else reply.failure
