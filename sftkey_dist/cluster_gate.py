"""Which Ray cluster a command is to use, and whether it may: one gate for `cluster.address`, RAY_ADDRESS and jobs."""

import os
from dataclasses import dataclass

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.secrets import holds_credentials, is_loopback
from sftkey_dist.errors import ConfigError


@dataclass(frozen=True)
class NamedCluster:
    """A cluster that is there already.

    Attributes:
        address: `host:port`, `auto`, or a dashboard's URL.
        source: where the address was given, for messages.
    """

    address: str
    source: str

    def require_no_credentials(self) -> None:
        """
        Raises:
            ConfigError: the address holds some.
        """
        if holds_credentials(self.address):
            raise ConfigError(f"{self.source} must not contain credentials; put the token into RAY_AUTH_TOKEN")

    def require_token(self, allowance: str, resolved: str = "") -> None:
        """
        Args:
            allowance: how a person would allow it nevertheless.
            resolved: what `auto` stands for.

        Raises:
            ConfigError: it is another machine's, or open to others, and no token would be asked for.
        """
        is_here = is_loopback(self.address) or is_loopback(resolved)
        if not is_here and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            raise ConfigError(
                f"{self.source}={self.address}: whoever reaches a Ray cluster can run anything on it; set "
                f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), here and on the cluster, or "
                f"{allowance}"
            )


def named_cluster(cluster: ClusterConfig) -> NamedCluster | None:
    """The cluster that the configuration or RAY_ADDRESS names; None for a private one.

    Raises:
        ConfigError: the address holds credentials.
    """
    environment = os.environ.get("RAY_ADDRESS", "")
    named = NamedCluster(cluster.address or "", "cluster.address")
    if named.address == "" or (named.address == "auto" and environment):  # as Ray reads `auto`
        named = NamedCluster(environment, "RAY_ADDRESS")
    if named.address in ("", "local"):
        return None
    named.require_no_credentials()
    return named
