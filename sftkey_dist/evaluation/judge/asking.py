"""Ask one judge many questions, from actors all over the cluster.

An endpoint is asked by threads of a few actors, a local model in batches by one actor for each worker. How many
questions are under way, and how fast they follow each other, is decided here in the driver, so that the limits hold
for the cluster as a whole. A killed actor is started again and asks again.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.schema import ClusterConfig, ModelConfig
from sftkey_dist.endpoint import Chat, Endpoint, Pace, endpoint_key, require_server
from sftkey_dist.errors import ConfigError, UserError
from sftkey_dist.evaluation.generation import in_batches
from sftkey_dist.evaluation.judge.local import LocalJudge
from sftkey_dist.evaluation.judge.reading import Reader, Ruling
from sftkey_dist.models.load import locate_model, model_fingerprint

_THREADS_PER_ACTOR = 32
_UNREADABLE_ATTEMPTS = 3
_FAILURES_BEFORE_GIVING_UP = 20
_RESTARTS = {"max_restarts": 3, "max_task_retries": 3}


@dataclass(frozen=True)
class Answered:
    """A ruling, or why there is none after the last attempt."""

    ruling: Ruling | None
    failure: str = ""


class Judge:
    """One judge, reached through actors for as long as the block lasts."""

    def __init__(self, actors: Sequence[Any], most_calls: int, batch_size: int, pace: Pace) -> None:
        self._actors = actors
        self._most_calls = most_calls
        self._batch_size = batch_size
        self._pace = pace

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def ask(self, chats: Mapping[str, Chat], reader: Reader) -> Iterator[tuple[str, Answered]]:
        """Answers by key, as they come; after too many failures in a row nobody is asked any more.

        Raises:
            ConfigError: no server answers at the URL, or it refuses the key or the model.
        """
        batches = iter(in_batches(list(chats), self._batch_size))
        under_way = {self._call(batch, chats, reader, 0): batch for batch in islice(batches, 1)}
        number = failures_in_a_row = 0
        while under_way:
            (done, *_), _ = ray.wait(list(under_way), num_returns=1)
            for key, answered in zip(under_way.pop(done), _result(done), strict=True):
                failures_in_a_row = failures_in_a_row + 1 if answered.failure else 0
                yield key, answered
            most = self._most_calls if failures_in_a_row < max(_FAILURES_BEFORE_GIVING_UP, self._most_calls) else 0
            for batch in islice(batches, max(0, most - len(under_way))):
                number += 1
                under_way[self._call(batch, chats, reader, number)] = batch
        for batch in batches:
            for key in batch:
                yield key, Answered(None, "not_asked_after_failures")

    def _call(self, keys: Sequence[str], chats: Mapping[str, Chat], reader: Reader, number: int) -> Any:
        """The first batch is asked alone, and tells whether anyone answers at all."""
        self._pace.wait()
        return self._actors[number % len(self._actors)].ask.remote([chats[key] for key in keys], reader, number == 0)


def judge_name(config: EndpointConfig | LocalJudgeConfig) -> str:
    """What a judge is known by in caches and records; a model is one wherever it is served."""
    if isinstance(config, EndpointConfig):
        return config.model
    folder = _folder(config)
    return f"{folder.name}@{model_fingerprint(folder)[:8]}"


def open_judge(config: EndpointConfig | LocalJudgeConfig, cluster: ClusterConfig, num_workers: int) -> Judge:
    """Start the actors that ask a judge; a Ray cluster must be connected."""
    if isinstance(config, EndpointConfig):
        number = math.ceil(config.concurrency / _THREADS_PER_ACTOR)
        options = {"num_cpus": 0, "max_concurrency": _THREADS_PER_ACTOR, "scheduling_strategy": "SPREAD", **_RESTARTS}
        actors = [_EndpointActor.options(**options).remote(config, endpoint_key(config)) for _ in range(number)]  # type: ignore[attr-defined]
        return Judge(actors, config.concurrency, 1, Pace(config.requests_per_minute))
    options = {"num_cpus": cluster.cpus_per_worker, "num_gpus": cluster.gpus_per_worker, **_RESTARTS}
    arguments = (config, str(_folder(config)), cluster.cpus_per_worker)
    actors = [_LocalActor.options(**options).remote(*arguments) for _ in range(num_workers)]  # type: ignore[attr-defined]
    return Judge(actors, num_workers, config.batch_size, Pace(None))


def _folder(config: LocalJudgeConfig) -> Path:
    return locate_model(ModelConfig(path=config.path, revision=config.revision))


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


@ray.remote
class _EndpointActor:
    def __init__(self, config: EndpointConfig, key: str) -> None:
        self._config = config
        self._endpoint = Endpoint(config, key)

    def ask(self, chats: Sequence[Chat], reader: Reader, is_first: bool) -> list[Answered]:
        return [_asked(partial(self._ask, chat, is_first), reader) for chat in chats]

    def _ask(self, chat: Chat, is_first: bool) -> tuple[str, str]:
        reply = self._endpoint.ask(chat)
        if is_first:
            require_server(self._config, reply)
        return reply.text, "cut_off_at_max_tokens" if reply.cut_off else reply.failure


@ray.remote
class _LocalActor:
    def __init__(self, config: LocalJudgeConfig, folder: str, num_threads: int) -> None:
        self._judge = LocalJudge(config, folder, num_threads)

    def ask(self, chats: Sequence[Chat], reader: Reader, is_first: bool) -> list[Answered]:
        """A local model says the same again however often it is asked."""
        return [
            Answered(ruling) if (ruling := reader(text)) else Answered(None, "unreadable_reply")
            for text in self._judge.replies(chats)
        ]


def _asked(ask: Callable[[], tuple[str, str]], reader: Reader) -> Answered:
    """A reply that cannot be read is asked for again; what the client has retried already is not."""
    failure = ""
    for _ in range(_UNREADABLE_ATTEMPTS):
        text, failure = ask()
        ruling = reader(text) if not failure else None
        if ruling is not None:
            return Answered(ruling)
        failure = failure or "unreadable_reply"
        if failure not in ("unreadable_reply", "no_completion", "empty_reply"):
            break
    return Answered(None, failure)
