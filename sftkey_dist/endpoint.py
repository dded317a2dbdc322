"""Calls to an OpenAI-compatible endpoint: many at a time, retried, each answer or the reason why there is none."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import openai

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.errors import ConfigError

_NO_COMPLETION = "no_completion"
_SETTINGS_ARE_WRONG = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


@dataclass(frozen=True)
class Chat:
    """One question to a model."""

    system: str
    user: str


@dataclass(frozen=True)
class Reply:
    """The answer's text, or why there is none after the last attempt."""

    text: str = ""
    failure: str = ""


class Endpoint:
    """A client that many threads share; it waits and tries again as the server asks it to."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._has_answered = False
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=_key(config.api_key_env),
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
            yield self._first(chats[0])
            chats = chats[1:]
        pool = ThreadPoolExecutor(self._config.concurrency)
        try:
            yield from pool.map(self._ask, chats)
        finally:
            pool.shutdown(cancel_futures=True)

    def _first(self, chat: Chat) -> Reply:
        reply = self._ask(chat)
        if reply.failure == openai.APIConnectionError.__name__:
            raise ConfigError(f"endpoint {self._config.url}: no server answers; start it, or mend the URL")
        if reply.failure == _NO_COMPLETION:
            raise ConfigError(
                f"endpoint {self._config.url}: what answers there is no chat-completions server; most end in /v1"
            )
        self._has_answered = True
        return reply

    def _ask(self, chat: Chat) -> Reply:
        try:
            completion = self._client.chat.completions.create(
                model=self._config.model,
                messages=[{"role": "system", "content": chat.system}, {"role": "user", "content": chat.user}],
                temperature=0,
                max_tokens=self._config.max_tokens,
            )
        except _SETTINGS_ARE_WRONG as error:
            raise ConfigError(
                f"endpoint {self._config.url} answers {error.status_code}: check the model {self._config.model!r} and "
                f"the key in {self._config.api_key_env}"
            ) from error
        except openai.OpenAIError as error:
            return Reply(failure=type(error).__name__)
        except ValueError:
            return Reply(failure=_NO_COMPLETION)
        return _read(completion)


def _read(completion: Any) -> Reply:
    """The client checks nothing of a 200 answer: what came may be any JSON, or text."""
    try:
        choice = completion.choices[0]
        text = choice.message.content
    except (AttributeError, IndexError, TypeError):
        return Reply(failure=_NO_COMPLETION)
    if not isinstance(text, str) or not text:
        return Reply(failure="empty_reply")
    if choice.finish_reason == "length":
        return Reply(failure="cut_off_at_max_tokens")
    return Reply(text.encode(errors="replace").decode())


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{variable}: holds characters that no key has; set it again")
    return key or "none"
