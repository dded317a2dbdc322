"""Calls to an OpenAI-compatible endpoint: many at a time, retried, each answer or the reason why there is none."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.errors import ConfigError

_NO_COMPLETION = "no_completion"
_UNREACHABLE = openai.APIConnectionError.__name__
_SETTINGS_ARE_WRONG = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


@dataclass(frozen=True)
class Chat:
    """One question to a model."""

    system: str
    user: str


@dataclass(frozen=True)
class Reply:
    """The answer's text, or why there is none after the last attempt.

    Attributes:
        text: what the model said.
        failure: why there is no text; "" when there is.
        cut_off: whether the text ends because it was too long.
        prompt_tokens: tokens read, as the server counts them.
        completion_tokens: tokens written.
    """

    text: str = ""
    failure: str = ""
    cut_off: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Pace:
    """Lets requests pass one after the other, evenly spaced."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._seconds_between = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._seconds_between
        time.sleep(max(0.0, turn - time.monotonic()))


class Endpoint:
    """A client that many threads share; it waits and tries again as the server asks it to."""

    def __init__(self, config: EndpointConfig, key: str) -> None:
        """
        Args:
            config: where, and how patiently.
            key: see `endpoint_key`; given apart, so that the machine that asks need not know the variable.
        """
        self._config = config
        self._has_answered = False
        self._pace = Pace(config.requests_per_minute)
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=key,
            timeout=config.timeout_seconds,
            max_retries=config.max_retries,
        )

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._config.model

    def ask_all(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        """Replies in the order of the questions; the very first is asked alone, to learn whether anyone answers.

        Raises:
            ConfigError: no server answers at the URL, or it refuses the key or the model.
        """
        if chats and not self._has_answered:
            first = self.ask(chats[0])
            require_server(self._config, first)
            self._has_answered = True
            yield _cut_off_is_failure(first)
            chats = chats[1:]
        pool = ThreadPoolExecutor(self._config.concurrency)
        try:
            yield from map(_cut_off_is_failure, pool.map(self.ask, chats))
        finally:
            pool.shutdown(cancel_futures=True)

    def ask(self, chat: Chat) -> Reply:
        """One question, greedily answered.

        Raises:
            ConfigError: the server refuses the key or the model.
        """
        messages = [{"role": "system", "content": chat.system}, {"role": "user", "content": chat.user}]
        (reply,) = self.converse(messages, max_tokens=self._config.max_tokens, temperature=0)
        return reply

    def converse(self, messages: Sequence[dict[str, str]], **options: Any) -> list[Reply]:
        """Replies to a conversation, ``n`` of them where the options say so.

        Raises:
            ConfigError: as `ask`.
        """
        body = {"messages": list(messages), **options}
        return self._replies("/chat/completions", body, lambda choice: choice["message"]["content"])

    def complete(self, prompt_ids: Sequence[int], **options: Any) -> list[Reply]:
        """Continuations of a prompt's token ids, ``n`` of them where the options say so.

        Raises:
            ConfigError: as `ask`, or the server does not take token ids.
        """
        return self._replies("/completions", {"prompt": list(prompt_ids), **options}, lambda choice: choice["text"])

    def _replies(self, path: str, body: dict[str, Any], text_of: Callable[[Any], Any]) -> list[Reply]:
        """The client's own way to post, with its retries, but without its models: they cost more than the request."""
        self._pace.wait()
        try:
            response = self._client.post(path, body={"model": self._config.model, **body}, cast_to=httpx.Response)
            completion = response.json()
        except _SETTINGS_ARE_WRONG as error:
            raise ConfigError(
                f"endpoint {self._config.url} answers {error.status_code}: check the model {self._config.model!r} and "
                f"the key in {_key_variable(self._config) or 'the variable that api_key_env names'}"
            ) from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return [Reply(failure=f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")]
        except openai.OpenAIError as error:
            return [Reply(failure=type(error).__name__)]
        except ValueError:
            return [Reply(failure=_NO_COMPLETION)]
        return _read(completion, text_of)


def require_server(config: EndpointConfig, first: Reply) -> None:
    """Tell a server that answers badly now and then from none at all, by its first reply.

    Raises:
        ConfigError: no server answers at the URL.
    """
    if first.failure == _UNREACHABLE:
        raise ConfigError(f"endpoint {config.url}: no server answers; start it, or mend the URL")
    if first.failure == _NO_COMPLETION:
        raise ConfigError(f"endpoint {config.url}: what answers there is no chat-completions server; most end in /v1")


def endpoint_key(config: EndpointConfig) -> str:
    """The key of an endpoint; "none" for servers without keys.

    Raises:
        ConfigError: the variable holds what cannot be a key.
    """
    variable = _key_variable(config)
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{variable}: holds characters that no key has; set it again")
    return key or "none"


def _key_variable(config: EndpointConfig) -> str | None:
    """OpenAI's key goes to OpenAI, and to no other server unless the configuration says so."""
    is_openai = urlsplit(config.url).hostname == "api.openai.com"
    return config.api_key_env or ("OPENAI_API_KEY" if is_openai else None)


def _read(completion: Any, text_of: Callable[[Any], Any]) -> list[Reply]:
    """What came with status 200 may be any JSON."""
    try:
        usage, choices = completion.get("usage") or {}, list(completion["choices"])
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0) // max(1, len(choices))
        texts = [(text_of(choice), choice.get("finish_reason") == "length") for choice in choices]
    except (AttributeError, KeyError, TypeError, ValueError):
        return [Reply(failure=_NO_COMPLETION)]
    if not texts:
        return [Reply(failure="empty_reply")]
    return [_reply(text, cut_off, prompt_tokens, completion_tokens) for text, cut_off in texts]


def _reply(text: Any, cut_off: bool, prompt_tokens: int, completion_tokens: int) -> Reply:
    if not isinstance(text, str) or not text:
        return Reply(failure="empty_reply", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return Reply(text.encode(errors="replace").decode(), "", cut_off, prompt_tokens, completion_tokens)


def _cut_off_is_failure(reply: Reply) -> Reply:
    return Reply(failure="cut_off_at_max_tokens") if reply.cut_off else reply
