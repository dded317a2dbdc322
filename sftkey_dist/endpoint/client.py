"""The client: concurrent requests in threads, with a rate limit and with retries of transient errors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import httpx
import openai

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.console import errors
from sftkey_dist.endpoint.chat import Chat, Pace
from sftkey_dist.endpoint.proxies import http_client, proxy_of
from sftkey_dist.endpoint.refusals import Manner, Refusal, tell_errors_by_status
from sftkey_dist.endpoint.replies import (
    CUT_OFF,
    NO_COMPLETION,
    Reply,
    chat_content,
    completion_content,
    read_completion,
)
from sftkey_dist.endpoint.settings import require_server, wrong_settings
from sftkey_dist.endpoint.threads import map_in_threads
from sftkey_dist.errors import ConfigError

Question = TypeVar("Question")
Result = TypeVar("Result")

_SETTINGS_ARE_WRONG = (401, 403, 404, 405, 407)
_MAY_BE_OF_TEXT = (403, 404, 405)
"""Of these, what a firewall before a server that has answered may say of a single request."""
_LONGEST_TOLD = 200
_SECONDS_FOR_MODELS = 10.0
_MAY_DROP = ("temperature", "max_tokens", "system")
"""Parameters that can be left out without changing the question."""


class Endpoint:
    """A client that many threads can share. It waits and retries as the server requests.

    Once the server has refused a parameter, it is left out or renamed in all later requests.

    Attributes:
        is_known_to_answer: whether a request has been answered, so that the URL, the key and the model are right.
    """

    def __init__(self, config: EndpointConfig, key: str) -> None:
        """
        Args:
            config: the endpoint's configuration.
            key: see `endpoint_key`. It is a separate argument, so that the variable need not be set on the machine that
                sends the requests.

        Raises:
            ConfigError: The environment names a proxy that cannot be used.
        """
        self._config = config
        self._key = key
        self._has_answered = False
        self.is_known_to_answer = False
        self._manner = Manner()
        self._pace = Pace(config.requests_per_minute)
        http = http_client(config.url, proxy_of(config.url))
        http.event_hooks = {"response": [tell_errors_by_status]}
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=key,
            timeout=config.timeout_seconds,
            max_retries=config.max_retries,
            http_client=http,
        )

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._config.model

    @property
    def notes(self) -> tuple[str, ...]:
        """How requests were adapted to this server."""
        return self._manner.notes()

    def ask_all(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        """Yield replies in the order of the questions. The very first is asked alone, to check that a server answers.

        Raises:
            ConfigError: No server answers at the URL, or it refuses the key or the model.
        """
        yield from map(_cut_off_is_failure, self.each(self.ask, chats, lambda reply: reply.failure))

    def each(
        self,
        ask: Callable[[Question], Result],
        questions: Sequence[Question],
        failure_of: Callable[[Result], str],
    ) -> Iterator[Result]:
        """Yield what ``ask`` returns for each question, in order, as `ask_all` does.

        Args:
            ask: sends requests with this client, from several threads.
            questions: one for each call.
            failure_of: the failure in a result, as in `Reply`; "" if there is none.

        Raises:
            ConfigError: See `ask_all`.
        """
        if questions and not self._has_answered:
            first = ask(questions[0])
            require_server(self._config, Reply(failure=failure_of(first)))
            self._has_answered = True
            yield first
            questions = questions[1:]
        yield from map_in_threads(ask, questions, self._config.concurrency)

    def ask(self, chat: Chat) -> Reply:
        """Ask one question, with greedy decoding if the server supports it.

        Raises:
            ConfigError: The server refuses the key or the model.
        """
        body = {"messages": chat.messages, "max_tokens": self._config.max_tokens, "temperature": 0}
        (reply, *_) = self._replies("/chat/completions", body, chat_content, _MAY_DROP)
        return reply

    def converse(self, messages: Sequence[Mapping[str, object]], **options: object) -> list[Reply]:
        """Replies to a conversation, several if the option ``n`` is given. No option is left out.

        Raises:
            ConfigError: As `ask`.
        """
        return self._replies("/chat/completions", {"messages": list(messages), **options}, chat_content)

    def complete(self, prompt_ids: Sequence[int], **options: object) -> list[Reply]:
        """Completions of a prompt's token ids, several if the option ``n`` is given.

        Raises:
            ConfigError: As `ask`, or the server does not accept token ids.
        """
        return self._replies("/completions", {"prompt": list(prompt_ids), **options}, completion_content)

    def call(self, url: str, body: Mapping[str, object]) -> object:
        """The JSON that another route of the server replies with, or the `Refusal` of the request.

        Raises:
            ConfigError: No server answers, its reply is not JSON, or it refuses the key or the model.
        """
        self._pace.wait()
        try:
            return self._post(url, body)
        except openai.APIStatusError as error:
            refusal = self._refusal(error)
            names_model = bool(self.model) and self.model in refusal.message
            if refusal.status in (401, 403, 407) or (refusal.status in (400, 404) and names_model):
                raise self._wrong_settings(refusal.status, refusal.message[:_LONGEST_TOLD]) from None
            return refusal
        except openai.OpenAIError as error:
            require_server(self._config, Reply(failure=_with_cause(error)))
            raise ConfigError(f"endpoint {self._config.url}: no answer at {url} ({_with_cause(error)})") from error
        except (ValueError, RecursionError):
            raise ConfigError(f"endpoint {self._config.url}: the reply at {url} is not JSON; check the URL") from None

    def _replies(
        self,
        path: str,
        body: Mapping[str, object],
        content_of: Callable[[Mapping[str, object]], object],
        may_drop: Sequence[str] = (),
    ) -> list[Reply]:
        """Send a request, and adapt and repeat it if the server refuses a parameter that is not essential."""
        manner = self._manner
        while True:
            self._pace.wait()
            try:
                completion = self._post(path, manner.applied(body))
            except openai.APIStatusError as error:
                refusal = self._refusal(error)
                other = manner.after(refusal, body, may_drop)
                if other is None:
                    return [Reply(failure=self._failure(type(error).__name__, refusal))]
                manner = other
            except openai.OpenAIError as error:
                return [Reply(failure=_with_cause(error))]
            except (ValueError, RecursionError):
                return [Reply(failure=NO_COMPLETION)]
            else:
                self.is_known_to_answer = True
                self._remember(manner)
                return read_completion(completion, content_of)

    def _post(self, path: str, body: Mapping[str, object]) -> object:
        """Post with the client's retries, but without its response models, which take more time than the request."""
        return self._client.post(path, body={"model": self.model, **body}, cast_to=httpx.Response).json()

    def _refusal(self, error: openai.APIStatusError) -> Refusal:
        """The refusal, in whose message proxies may quote the key."""
        refusal = Refusal.of(error.response)
        if self._key == "none":
            return refusal
        return replace(refusal, message=refusal.message.replace(self._key, "[key]"))

    def _remember(self, manner: Manner) -> None:
        known, self._manner = self._manner.notes(), manner
        for note in manner.notes():
            if note not in known:
                errors.print(f"endpoint {self._config.url}: {note}", soft_wrap=True)

    def _failure(self, name: str, refusal: Refusal) -> str:
        """The failure: a name by which it is counted, and the server's message.

        Raises:
            ConfigError: The server would refuse any other request too.
        """
        message = refusal.message[:_LONGEST_TOLD]
        names_model = bool(self.model) and self.model in refusal.message
        if refusal.is_of_content:
            name = "filtered"
        elif refusal.is_of_quota:
            name = "out_of_quota"
        elif self.is_known_to_answer and refusal.status in _MAY_BE_OF_TEXT and not names_model:
            name = f"HTTP {refusal.status}"
        elif refusal.status in _SETTINGS_ARE_WRONG or refusal.is_of_model(self.model):
            raise self._wrong_settings(refusal.status, message)
        elif name == openai.APIStatusError.__name__:
            name = f"HTTP {refusal.status}"
        proxy = proxy_of(self._config.url) if refusal.status >= 500 else None
        through = f"through the proxy {proxy} that {proxy.variable} names" if proxy else ""
        return ": ".join((name, "; ".join(filter(None, (message, through))))) if message or through else name

    def _wrong_settings(self, status: int, message: str) -> ConfigError:
        models = self.models() if status not in (401, 403, 407) else []
        return wrong_settings(self._config, status, message, models)

    def models(self) -> list[str]:
        """The models that the server lists; empty if it lists none."""
        try:
            client = self._client.with_options(max_retries=0, timeout=_SECONDS_FOR_MODELS)
            listed = client.get("/models", cast_to=httpx.Response).json()
            return [str(model["id"]) for model in listed["data"]]
        except (openai.OpenAIError, ValueError, KeyError, TypeError):
            return []


def _with_cause(error: openai.OpenAIError) -> str:
    """Name of an error, with the root cause at the end of its chain of exceptions."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    said = in_a_line(cause, 100) if cause is not error else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _cut_off_is_failure(reply: Reply) -> Reply:
    return Reply(failure=CUT_OFF) if reply.cut_off and not reply.failure else reply
