"""A judge behind an OpenAI-compatible server, which threads of a few actors ask.

This is a module of its own because importing the local judge takes ten times as long as starting an actor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import ray

from sftkey_dist.cluster.place import place_that_reaches
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.endpoint import CUT_OFF, Chat, Pace, Reply, endpoint_key
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.endpoint.settings import check_endpoint, require_server
from sftkey_dist.evaluation.judge.asking import RESTARTS, Judge, JudgeReply, read_reply
from sftkey_dist.evaluation.judge.reading import Reader

_THREADS_PER_ACTOR = 32
_WAITING_PER_ACTOR = 4
"""Questions queued per actor for the next free thread, because sending one from the driver takes milliseconds."""
_UNREADABLE_ATTEMPTS = 3
_WORTH_ASKING_AGAIN = frozenset({"unreadable_reply", "no_completion", "empty_reply", "thinking_only", "tool_call_only"})


def open_served_judge(config: EndpointConfig) -> Judge:
    """Start the actors. A Ray cluster must be connected.

    Raises:
        ConfigError: the key or the proxy cannot be used.
    """
    check_endpoint(config)
    key = endpoint_key(config)
    number = math.ceil(config.concurrency / _THREADS_PER_ACTOR)
    threads = [(config.concurrency + i) // number for i in range(number)]  # the total is the limit
    options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", **place_that_reaches(config.url), **RESTARTS}
    actors = [
        _EndpointActor.options(max_concurrency=count, **options).remote(config, key)  # type: ignore[attr-defined]
        for count in threads
    ]
    waiting = number * _WAITING_PER_ACTOR
    return Judge(actors, config.concurrency + waiting, 1, Pace(config.requests_per_minute))


def ask_until_readable(ask: Callable[[], tuple[str, str]], reader: Reader) -> JudgeReply:
    """Ask again while the reply cannot be parsed. Failures that the client has already retried are not retried.

    Args:
        ask: returns a text and a failure, one of which is empty.
        reader: parses a text into a ruling.
    """
    for _ in range(_UNREADABLE_ATTEMPTS):
        reply = read_reply(Reply(*ask()), reader)
        if reply.failure not in _WORTH_ASKING_AGAIN:
            break
    return reply


@ray.remote
class _EndpointActor:
    def __init__(self, config: EndpointConfig, key: str) -> None:
        self._config = config
        self._endpoint = Endpoint(config, key)

    def ask(self, chats: Sequence[Chat], reader: Reader, is_first: bool, is_known_to_answer: bool) -> list[JudgeReply]:
        self._endpoint.is_known_to_answer |= is_known_to_answer  # to another actor, or to one that was lost
        replies = [ask_until_readable(partial(self._ask, chat, is_first), reader) for chat in chats]
        return [replace(reply, notes=self._endpoint.notes) for reply in replies]

    def _ask(self, chat: Chat, is_first: bool) -> tuple[str, str]:
        reply = self._endpoint.ask(chat)
        if is_first:
            require_server(self._config, reply)
        return reply.text, CUT_OFF if reply.cut_off and not reply.failure else reply.failure
