"""What is measured of a node."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """A node's clock beside the driver's.

    Attributes:
        ahead_seconds: how far the node's clock is ahead; negative if it is behind.
        uncertainty_seconds: half of the round trip of the shortest exchange.
    """

    ahead_seconds: float
    uncertainty_seconds: float


@dataclass(frozen=True)
class Storage:
    """The run directory as a node sees it.

    Attributes:
        is_visible: whether it is the folder that the driver sees.
        unseen: other folders that the driver sees and the node does not.
        problem: why the node cannot write there; empty if it can.
        free_bytes: free bytes of the file system.
        written_bytes_per_second: rate of a file that is written and flushed.
        read_bytes_per_second: rate at which the same file is read back.
    """

    is_visible: bool = True
    unseen: tuple[str, ...] = ()
    problem: str = ""
    free_bytes: int = 0
    written_bytes_per_second: float = 0.0
    read_bytes_per_second: float = 0.0


@dataclass(frozen=True)
class Software:
    """What is installed on a node.

    Attributes:
        versions: version by name; ``code`` is a digest of this package's source.
        free_memory_bytes: memory that a new process could use; 0 if the system does not say.
    """

    versions: dict[str, str]
    free_memory_bytes: int


@dataclass(frozen=True)
class Speed:
    """A matrix product on one device.

    Attributes:
        flops_per_second: rate of the fastest of several products; 0 if there is a problem.
        problem: why there is no rate; empty if there is one.
        is_wrong: whether the product was not what it must be.
    """

    flops_per_second: float = 0.0
    problem: str = ""
    is_wrong: bool = False


@dataclass(frozen=True)
class Speeds:
    """Matrix products of a node.

    Attributes:
        core: on one core of its processor.
        accelerators: on each accelerator that torch sees there; none if none is reserved.
    """

    core: Speed
    accelerators: tuple[Speed, ...] = ()


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that sum a tensor together.

    Attributes:
        address: where the first node listens.
        port: where the first node listens.
        size: number of nodes.
        environment: environment variables that say how ranks communicate.
        on_accelerators: whether to sum on the first accelerator of each node, and not on its processor.
        most_seconds: longest wait for another node.
    """

    address: str
    port: int
    size: int
    environment: Mapping[str, str]
    on_accelerators: bool
    most_seconds: float


@dataclass(frozen=True)
class Exchange:
    """An all-reduce of all nodes that have answered everything, as ranks do it in every step.

    Attributes:
        bytes_per_second: bytes of a tensor that is summed over the nodes in a second; 0 if there is a problem.
        problem: why there is no rate; empty if there is one.
    """

    bytes_per_second: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class NodeCheck:
    """What a node answered; None is what it did not answer in time.

    Attributes:
        address: IP address of the node.
        num_gpus: accelerators that were free, and are reserved while they are measured.
        num_gpus_in_use: accelerators that others have reserved, which are not measured.
        clock: its clock.
        received_bytes_per_second: rate at which it receives from the driver; None on the driver's own node.
        software: what is installed.
        storage: the run directory.
        is_seen: whether the driver sees what the node has written there.
        speeds: matrix products.
        problem: why something is missing; empty if nothing is.
        is_broken: whether it failed, and did not only take too long.
    """

    address: str
    num_gpus: int = 0
    num_gpus_in_use: int = 0
    clock: Clock | None = None
    received_bytes_per_second: float | None = None
    software: Software | None = None
    storage: Storage | None = None
    is_seen: bool = True
    speeds: Speeds | None = None
    problem: str = ""
    is_broken: bool = False
