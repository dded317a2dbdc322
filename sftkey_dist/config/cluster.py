"""Where the work runs."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from sftkey_dist.config.paths import Location
from sftkey_dist.config.secrets import holds_credentials, is_named_like_a_secret
from sftkey_dist.config.section import MOST_SECONDS, MOST_WORKERS, Section


class ClusterConfig(Section):
    """Where the work runs."""

    address: Location | None = None
    """Address of a running Ray cluster (`auto` finds it); none starts a private one on this machine.
    The environment variable RAY_ADDRESS is honoured when this is not set."""
    allow_unauthenticated: bool = False
    """Use a cluster of other machines that asks for no token; whoever reaches it can run anything on it."""
    num_workers: int = Field(2, ge=1, le=MOST_WORKERS)
    """Data-parallel ZeRO-3 ranks."""
    min_workers: int | None = Field(None, ge=1, le=MOST_WORKERS)
    """Go on with so few ranks at least when nodes are lost, and with all again when they are back; by default a stage
    needs `num_workers` always. What is computed does not depend on the number."""
    cpus_per_worker: int = Field(1, ge=1, le=4096)
    """CPU cores, and compute threads, of each rank."""
    gpus_per_worker: int = Field(0, ge=0, le=1)
    """Accelerators of each rank."""
    wait_for_nodes_seconds: float = Field(0.0, ge=0, le=MOST_SECONDS)
    """How long to wait for a running cluster to have enough nodes; an autoscaler is asked for them."""
    start_timeout_seconds: float = Field(1800.0, ge=10, le=MOST_SECONDS)
    """Longest time for the processes of all ranks to start and to find each other; after it they are started again. A
    start takes a minute where many nodes read the libraries from one storage."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment of the workers, of training and of generation, e.g. `{NCCL_IB_HCA: mlx5}`; it is written to the run
    directory, so secrets do not belong here."""
    network_interface: str | None = None
    """Interface for gloo and NCCL between hosts, e.g. `eth0`; needed where a host's name resolves to loopback."""

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

    @model_validator(mode="after")
    def min_is_not_more(self) -> Self:
        """A range."""
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers={self.min_workers} is more than num_workers={self.num_workers}")
        return self
