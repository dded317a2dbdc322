"""What is asked, how fast, and with which key; loads no client."""

import os
import threading
import time
from dataclasses import dataclass

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.errors import ConfigError


@dataclass(frozen=True)
class Chat:
    """One question to a model; without a system message where ``system`` is empty."""

    system: str
    user: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """As they are sent."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]


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


def endpoint_key(config: EndpointConfig) -> str:
    """The key of an endpoint; "none" for servers without keys.

    Raises:
        ConfigError: the variable holds what cannot be a key.
    """
    variable = config.key_variable
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{variable}: holds characters that no key has; set it again")
    return key or "none"
