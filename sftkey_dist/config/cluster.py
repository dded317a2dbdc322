"""Where the work runs."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.paths import Location
from sftkey_dist.config.secrets import holds_credentials, is_named_like_a_secret
from sftkey_dist.config.section import MAX_SECONDS, MAX_WORKERS, Section


class ClusterConfig(Section):
    """Where the work runs."""

    address: Location | None = None
    """Address of a running Ray cluster; `auto` finds one on this machine. Default: the environment variable RAY_ADDRESS
    or, if that is not set either, a private cluster that is started on this machine."""
    allow_unauthenticated: bool = False
    """Allow a cluster of other machines that does not require a token. Anyone who can reach such a cluster can run code
    on it."""
    num_workers: int = Field(2, ge=1, le=MAX_WORKERS)
    """Number of ZeRO-3 ranks. With `training.sequence_parallel_ranks`, each of the ranks that share a row counts."""
    min_workers: int | None = Field(None, ge=1, le=MAX_WORKERS)
    """Minimum number of ranks to continue with when nodes are lost; all ranks are used again once the nodes are back.
    Default: `num_workers`. The result of a computation does not depend on the number of ranks."""
    cpus_per_worker: int = Field(1, ge=1, le=4096)
    """CPU cores, and therefore compute threads, of each rank."""
    gpus_per_worker: int = Field(0, ge=0, le=1)
    """Accelerators of each rank."""
    wait_for_nodes_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    """How long to wait until a cluster that is named answers, and then until it has enough nodes. An autoscaler is
    asked for the missing ones."""
    start_timeout_seconds: float = Field(1800.0, ge=10, le=MAX_SECONDS)
    """Maximum time for the processes of all ranks to start, load their libraries and join the process group. After it
    they are started again. Starting takes minutes where many nodes read the libraries from one storage, and the time
    includes the wait for accelerators that other work on the cluster uses."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the training and generation workers, e.g. `{NCCL_IB_HCA: mlx5}`. They are written to the
    run directory, so they must not contain secrets."""
    network_interface: str | None = None
    """Network interface that gloo and NCCL use between hosts, e.g. `eth0`. It is needed where a host's name resolves to
    a loopback address."""

    @field_validator("environment")
    @classmethod
    def environment_holds_no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        """The configuration is written to the run directory and to MLflow."""
        for name, text in value.items():
            if is_named_like_a_secret(name) or holds_credentials(text):
                raise ValueError(
                    f"cluster.environment: {name} looks like a secret, and the configuration is written to files; "
                    f"set it in the environment that the cluster's nodes are started with"
                )
        return value

    def network_environment(self, otherwise: str | None = None) -> dict[str, str]:
        """Environment variables that tell gloo and NCCL the network interface, or another one if none is set."""
        interface = self.network_interface or otherwise
        return dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface) if interface else {}

    @model_validator(mode="after")
    def min_is_not_more(self) -> Self:
        """The minimum may not exceed the number of workers."""
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers={self.min_workers} is more than num_workers={self.num_workers}")
        return self
