"""Token ids of prompts as a server itself writes them, by the routes of vLLM or of llama.cpp.

- vLLM: `/tokenize` takes messages, applies the chat template, and replies with ids; it also takes a text.
- llama.cpp: `/apply-template` takes messages and replies with a text, and `/tokenize` takes a text.

Both are beside `/v1` and not below it. `transformers serve` and hosted services have no such route.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.endpoint.refusals import Refusal
from sftkey_dist.errors import ConfigError

_API = "/v1"
_NO_ROUTE = (404, 405, 501)
_BUSY = (408, 425, 429, 502, 503, 504, 529)
_PROBE = "question"

Ids = list[int] | Refusal
"""Token ids, or the server's refusal of this prompt."""


class ServedTokenizer(Protocol):
    """The tokenizer and the chat template of a server."""

    @property
    def server(self) -> str:
        """The make of the server."""

    def ids_of_chat(self, messages: Sequence[Mapping[str, object]], options: Mapping[str, object]) -> Ids:
        """Ids of a conversation up to the start of the response.

        Args:
            messages: the conversation, as a request for its response contains it.
            options: what else determines the prompt of that request, such as tools.

        Raises:
            ConfigError: The server no longer answers, or not as one of its make does.
        """

    def ids_of_text(self, text: str, add_special_tokens: bool) -> Ids:
        """Ids of a text; with ``add_special_tokens`` also those that the tokenizer adds, such as BOS.

        Raises:
            ConfigError: See `ids_of_chat`.
        """


def base_url(url: str) -> str:
    """The URL of a server's API, given that URL or the server's own."""
    return url.rstrip("/").removesuffix(_API) + _API


def find_tokenizer(config: EndpointConfig, endpoint: Endpoint) -> ServedTokenizer:
    """The tokenizer of a server, whose make is recognised by its reply.

    Args:
        config: the server's configuration; its URL is from `base_url`.
        endpoint: a client for it.

    Raises:
        ConfigError: No server answers, it refuses the key or the model, or it has no tokenize route.
    """
    routes = _Routes(config.url.removesuffix(_API), endpoint)
    reply = routes.call("/tokenize", {"prompt": _PROBE})
    if isinstance(reply, Refusal):
        raise routes.unexpected("/tokenize", f" ({_words(reply)})")
    if isinstance(reply, Mapping) and "count" in reply:
        return _Vllm(routes)
    if isinstance(reply, Mapping) and reply.get("tokens") == []:  # it reads another field than `prompt`
        return _LlamaCpp(routes)
    raise routes.unexpected("/tokenize")


class _Routes:
    """Calls of the routes beside the API."""

    def __init__(self, root: str, endpoint: Endpoint) -> None:
        self._root = root
        self._endpoint = endpoint

    def call(self, route: str, body: Mapping[str, object]) -> object:
        reply = self._endpoint.call(self._root + route, body)
        if isinstance(reply, Refusal) and reply.status in _NO_ROUTE:
            raise ConfigError(
                f"endpoint {self._root}: the server has no route {route} ({_words(reply)}), so that its prompts cannot "
                f"be compared; vLLM and llama.cpp have it, `transformers serve` and hosted services have not"
            )
        if isinstance(reply, Refusal) and reply.status in _BUSY:
            raise ConfigError(
                f"endpoint {self._root}: {route} answers {_words(reply)}; repeat the command when the server is ready"
            )
        return reply

    def ids(self, body: Mapping[str, object]) -> Ids:
        reply = self.call("/tokenize", body)
        if isinstance(reply, Refusal):
            return reply
        ids = reply.get("tokens") if isinstance(reply, Mapping) else None
        if not isinstance(ids, list) or not all(isinstance(token_id, int) for token_id in ids):
            raise self.unexpected("/tokenize")
        return ids

    def unexpected(self, route: str, said: str = "") -> ConfigError:
        return ConfigError(
            f"endpoint {self._root}: {route} replies as neither vLLM nor llama.cpp does{said}, so that the server's "
            f"prompts cannot be compared; check the URL"
        )


class _Vllm:
    server = "vLLM"

    def __init__(self, routes: _Routes) -> None:
        self._routes = routes

    def ids_of_chat(self, messages: Sequence[Mapping[str, object]], options: Mapping[str, object]) -> Ids:
        return self._routes.ids(_conversation(messages, options))

    def ids_of_text(self, text: str, add_special_tokens: bool) -> Ids:
        return self._routes.ids({"prompt": text, "add_special_tokens": add_special_tokens})


class _LlamaCpp:
    server = "llama.cpp"

    def __init__(self, routes: _Routes) -> None:
        self._routes = routes

    def ids_of_chat(self, messages: Sequence[Mapping[str, object]], options: Mapping[str, object]) -> Ids:
        reply = self._routes.call("/apply-template", _conversation(messages, options))
        if isinstance(reply, Refusal):
            return reply
        if not isinstance(reply, Mapping) or not isinstance(reply.get("prompt"), str):
            raise self._routes.unexpected("/apply-template")
        # As for a chat completion: the server takes a BOS token out of the template's text and adds its tokenizer's.
        return self.ids_of_text(reply["prompt"], add_special_tokens=True)

    def ids_of_text(self, text: str, add_special_tokens: bool) -> Ids:
        return self._routes.ids({"content": text, "add_special": add_special_tokens, "parse_special": True})


def _conversation(messages: Sequence[Mapping[str, object]], options: Mapping[str, object]) -> dict[str, object]:
    return {"messages": list(messages), "add_generation_prompt": True, **options}


def _words(refusal: Refusal) -> str:
    return f"{refusal.status} {refusal.message}".strip()[:200]
