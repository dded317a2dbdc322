"""Decides which Ray cluster a command uses, and whether it may, for `cluster.address`, RAY_ADDRESS and jobs alike."""

import os
import socket
from dataclasses import dataclass

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.secrets import holds_credentials, is_loopback
from sftkey_dist.errors import ConfigError

_MAX_SECONDS_TO_CONNECT = 5.0
_LAST_PORT = 65535


@dataclass(frozen=True)
class NamedCluster:
    """An existing cluster.

    Attributes:
        address: `host:port`, `auto`, or the URL of a dashboard.
        source: the setting that contains the address, for messages.
    """

    address: str
    source: str

    def require_no_credentials(self) -> None:
        """
        Raises:
            ConfigError: the address contains credentials.
        """
        if holds_credentials(self.address):
            raise ConfigError(f"{self.source} must not contain credentials; put the token into RAY_AUTH_TOKEN")

    def require_token(self, allowance: str, resolved: str = "") -> None:
        """
        Args:
            allowance: how to allow access without a token, for the message.
            resolved: the address that `auto` stands for.

        Raises:
            ConfigError: the cluster is reachable from other machines, and token authentication is off.
        """
        is_here = is_loopback(self.address) or is_loopback(resolved)
        if not is_here and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            raise ConfigError(
                f"{self.source}={self.address}: anyone who can reach a Ray cluster can run code on it; set "
                f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), here and on the cluster, or "
                f"{allowance}"
            )


def named_cluster(cluster: ClusterConfig) -> NamedCluster | None:
    """The cluster that the configuration or RAY_ADDRESS names; None for a private cluster.

    Raises:
        ConfigError: the address contains credentials.
    """
    environment = os.environ.get("RAY_ADDRESS", "")
    named = NamedCluster(cluster.address or "", "cluster.address")
    if named.address == "" or (named.address == "auto" and environment):  # as Ray interprets `auto`
        named = NamedCluster(environment, "RAY_ADDRESS")
    if named.address in ("", "local"):
        return None
    named.require_no_credentials()
    return named


def refusal_of(address: str) -> Exception | None:
    """Why no connection to an address can be made; None if one can."""
    host, _, port = address.rpartition(":")
    try:
        if int(port) > _LAST_PORT:
            raise ValueError(f"there is no port {port}")
        socket.create_connection((host.strip("[]"), int(port)), _MAX_SECONDS_TO_CONNECT).close()
    except (OSError, ValueError, OverflowError) as error:
        return error
    return None
