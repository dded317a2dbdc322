"""Questions, rate limit and API key of an endpoint, without loading the client."""

import os
import threading
import time
from dataclasses import dataclass

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.errors import ConfigError


@dataclass(frozen=True)
class Chat:
    """One question to a model; an empty ``system`` means no system message."""

    system: str
    user: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages of the request."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]


class Pace:
    """Rate limiter that spaces requests evenly."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._seconds_between = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the next request may be sent."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._seconds_between
        time.sleep(max(0.0, turn - time.monotonic()))


def endpoint_key(config: EndpointConfig) -> str:
    """The API key of an endpoint; "none" for servers without keys.

    Raises:
        ConfigError: The environment variable contains something that cannot be a key.
    """
    variable = config.key_variable
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{variable}: contains characters that are not allowed in a key; set it again")
    return key or "none"
