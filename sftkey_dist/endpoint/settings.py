"""Whether an endpoint's settings are right: the URL, the proxy, the key and the model."""

from collections.abc import Sequence

import openai

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.endpoint.chat import endpoint_key
from sftkey_dist.endpoint.proxies import http_client, proxy_of
from sftkey_dist.endpoint.replies import NO_COMPLETION, Reply
from sftkey_dist.errors import ConfigError
from sftkey_dist.suggestion import closest_name

_UNREACHABLE = openai.APIConnectionError.__name__
_MODELS_NAMED = 8


def check_endpoint(config: EndpointConfig) -> None:
    """Check the settings of an endpoint without sending a request.

    Raises:
        ConfigError: The key, the proxy or the certificates that the environment names cannot be used.
    """
    endpoint_key(config)
    http_client(config.url, proxy_of(config.url)).close()


def require_server(config: EndpointConfig, first: Reply) -> None:
    """Check by the first reply that a server answers at all; single failed requests are no error.

    Raises:
        ConfigError: No server answers at the URL.
    """
    name, _, cause = first.failure.partition(": ")
    proxy = proxy_of(config.url)
    if name == _UNREACHABLE and proxy is not None:
        raise ConfigError(
            f"endpoint {config.url}: no answer through the proxy {proxy} that {proxy.variable} names ({cause}); "
            f"correct or unset the variable, or add the host to NO_PROXY"
        )
    if name == _UNREACHABLE:
        raise ConfigError(f"endpoint {config.url}: no server answers ({cause}); start it, or correct the URL")
    if name == NO_COMPLETION:
        raise ConfigError(
            f"endpoint {config.url}: this is not a chat-completions server; check the URL, which usually ends in /v1"
        )


def wrong_settings(config: EndpointConfig, status: int, message: str, models: Sequence[str]) -> ConfigError:
    """The error for a server that refuses every request.

    Args:
        config: the endpoint's configuration.
        status: HTTP status of the refusal.
        message: what the server says, shortened; may be empty.
        models: that the server lists; empty if it lists none or was not asked.
    """
    said = f" ({message})" if message else ""
    where = f"endpoint {config.url} answers {status}{said}"
    if status == 407:
        return ConfigError(f"{where}: the proxy needs credentials; add them to the environment variable that names it")
    if config.model in models:
        return ConfigError(
            f"{where}: the server has the model {config.model!r}; check the URL, which usually ends in /v1"
        )
    key = f"the key in {config.key_variable or 'the variable that api_key_env names'}"
    return ConfigError(f"{where}: check the model {config.model!r} and {key}{_others(config.model, models)}")


def _others(model: str, models: Sequence[str]) -> str:
    if not models:
        return ""
    close = closest_name(model, models)
    meant = f"; did you mean {close!r}?" if close else ""
    more = f" and {len(models) - _MODELS_NAMED} more" if len(models) > _MODELS_NAMED else ""
    return f"; the server has {', '.join(models[:_MODELS_NAMED])}{more}{meant}"
