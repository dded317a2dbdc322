"""Describes accelerators, networks and clusters by the numbers that matter for training."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from sftkey_dist.errors import ConfigError
from sftkey_dist.training.forward.flops import PEAK_TFLOPS

GIB = 2**30
NETWORK_EFFICIENCY = 0.8
"""Share of a link's bandwidth that collectives reach, over RDMA and within a node. This is an assumption."""


@dataclass(frozen=True)
class Accelerator:
    """A type of accelerator.

    Attributes:
        name: the name for `--gpu`.
        memory_gib: usable memory.
        peak_tflops: peak of dense matrix products in the precision of the training.
        memory_gb_per_second: bandwidth of the memory.
        link_gb_per_second: bandwidth to other accelerators of the node, in one direction.
        float32_tflops: peak of dense matrix products in float32.
        product_efficiency: share of the peak that matrix products reach.
        attention_efficiency: share of the peak that attention reaches.
        process_gib: memory of a rank before it holds any weight, for libraries, contexts and communicators.
        compute_bytes: bytes of a weight or an activation.
        overlaps_communication: whether collectives run at the same time as computation.
        collective_share: share of the multiprocessors that a running collective takes from computation.
    """

    name: str
    memory_gib: float
    peak_tflops: float
    memory_gb_per_second: float
    link_gb_per_second: float
    float32_tflops: float = 0.0
    product_efficiency: float = 0.65
    attention_efficiency: float = 0.35
    process_gib: float = 2.5
    compute_bytes: int = 2
    overlaps_communication: bool = True
    collective_share: float = 24 / 132

    def training_in(self, precision: Literal["float32", "bfloat16"]) -> "Accelerator":
        """The same device with the numbers of this precision."""
        if precision == "bfloat16":
            return self
        return replace(self, peak_tflops=self.float32_tflops, compute_bytes=4)


ACCELERATORS = {
    device.name: device
    for device in (
        Accelerator("b200-180g", 178, PEAK_TFLOPS["B200"], 8000, 900, 80),
        Accelerator("h200-141g", 139, PEAK_TFLOPS["H200"], 4800, 450, 67),
        Accelerator("h100-80g", 79, PEAK_TFLOPS["H100"], 3350, 450, 67),
        Accelerator("a100-80g", 79, PEAK_TFLOPS["A100"], 2039, 300, 19.5),
        Accelerator("a100-40g", 39, PEAK_TFLOPS["A100"], 1555, 300, 19.5),
        Accelerator("l40s-48g", 44, PEAK_TFLOPS["L40S"], 864, 32, 91.6),
    )
}
"""From NVIDIA's data sheets: bfloat16, and float32 without TF32. The efficiencies are assumptions: nothing here
was measured on one of them. So is the share of multiprocessors: NCCL logs "24 coll channels" on a node of eight H100,
which have 132, and shares none of those it takes (github.com/NVIDIA/nccl/issues/1656)."""


@dataclass(frozen=True)
class Protocol:
    """How NCCL passes data around a ring. Its cost model adds a start and every hop to the time for the bandwidth.

    Attributes:
        bandwidth_share: share of the bandwidth that is data; the rest is flags.
        start_microseconds: time to start a collective.
        node_hop_microseconds: time from a rank to the next one in the same node, over NVLink.
        network_hop_microseconds: time from a node to the next one.
        most_gb_per_second: maximum rate on any link.
    """

    bandwidth_share: float
    start_microseconds: float
    node_hop_microseconds: float
    network_hop_microseconds: float
    most_gb_per_second: float = math.inf

    def bytes_per_second(self, of_links: float) -> float:
        """The bandwidth for data on links of this bandwidth."""
        return min(of_links * self.bandwidth_share, self.most_gb_per_second * 1e9)


_SIMPLE = Protocol(1.0, 8.4, 3.4, 14.0)
_LL128 = Protocol(0.92, 14.0, 1.9, 4.0)
_LL = Protocol(0.5, 6.6, 1.0, 2.7, 20.4)
"""NVIDIA's own constants, nothing measured here: baseLatencies, hwLatencies and llMaxBws in src/graph/tuning.cc of
github.com/NVIDIA/nccl at 5067397 (June 2026); for LL's hop in a node the network's overhead of a microsecond on hosts
with Intel's processors. There, all-gather and reduce-scatter over several nodes of several ranks have no algorithm but
the ring: trees are for all-reduce, PAT wants one rank a node, and NVLS and CollNet want switches that reduce (NVLink's
own, within one node, are left out). PCIe's hops are longer, 5.7 µs, which beside its bandwidth does not count."""


@dataclass(frozen=True)
class Transport:
    """A way to carry data between nodes.

    Attributes:
        bandwidth_share: share of the network's bandwidth that collectives reach.
        protocols: protocols among which NCCL chooses the quickest one by its cost model.
    """

    bandwidth_share: float
    protocols: tuple[Protocol, ...]


_TCP_BANDWIDTH_SHARE = 0.15
"""Measured by others, on two nodes of 8 H100: 152 of 1,000 Gbit/s (github.com/skypilot-org/skypilot/issues/3592).
Slower networks are filled better: 32 to 48 % of 100 Gbit/s (github.com/NVIDIA/nccl/issues/450), 60 % of 32 (209)."""
_TCP_HOP_MICROSECONDS = 37.0
"""Measured by others: 8 bytes from node to node take 46 µs (github.com/NVIDIA/nccl-tests/issues/82), less the start."""

TRANSPORTS = {
    "rdma": Transport(NETWORK_EFFICIENCY, (_SIMPLE, _LL128, _LL)),
    # Without GPUDirect data goes through the host, where NCCL does not use LL128.
    "tcp": Transport(
        _TCP_BANDWIDTH_SHARE,
        tuple(replace(protocol, network_hop_microseconds=_TCP_HOP_MICROSECONDS) for protocol in (_SIMPLE, _LL)),
    ),
}


@dataclass(frozen=True)
class Cluster:
    """Equal nodes.

    Attributes:
        nodes: how many.
        gpus_per_node: ranks on each.
        accelerator: of every rank.
        network_gbps: Gbit/s between nodes, of a node.
        price_per_gpu_hour: in any currency; None where the cost is not asked for.
        storage_gb_per_second: a node writes so fast to shared storage.
        transport: between nodes, of `TRANSPORTS`.
    """

    nodes: int
    gpus_per_node: int
    accelerator: Accelerator
    network_gbps: float = 400.0
    price_per_gpu_hour: float | None = None
    storage_gb_per_second: float = 2.0
    transport: Literal["rdma", "tcp"] = "rdma"

    @property
    def ranks(self) -> int:
        """World size."""
        return self.nodes * self.gpus_per_node

    def ring_seconds(self, received_bytes: float, collectives: float) -> float:
        """Seconds of collectives over all ranks, one after another.

        Data that enters a node crosses the network once, and is passed on over the links within the node.

        Args:
            received_bytes: bytes that a rank receives in all of them.
            collectives: number of collectives.
        """
        transport = TRANSPORTS[self.transport if self.nodes > 1 else "rdma"]
        bytes_per_second = self.accelerator.link_gb_per_second * 1e9 * NETWORK_EFFICIENCY
        if self.nodes > 1:
            bytes_per_second = min(bytes_per_second, self.network_gbps / 8 * 1e9 * transport.bandwidth_share)
        return min(
            collectives * self._latency_seconds(protocol) + received_bytes / protocol.bytes_per_second(bytes_per_second)
            for protocol in transport.protocols
        )

    def _latency_seconds(self, protocol: Protocol) -> float:
        """Latency of a collective: in a ring, the data of the last rank passes through all other ranks."""
        if self.ranks == 1:
            return 0.0
        network_hops = self.nodes - 1
        node_hops = self.ranks - 1 - network_hops
        hops = node_hops * protocol.node_hop_microseconds + network_hops * protocol.network_hop_microseconds
        return (protocol.start_microseconds + hops) * 1e-6


def find_accelerator(name: str) -> Accelerator:
    """The accelerator with a name.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in ACCELERATORS:
        raise ConfigError(f"--gpu {name}: known are {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]
