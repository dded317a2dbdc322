"""What a cluster consists of, in the numbers that training meets."""

from dataclasses import dataclass, replace
from typing import Literal

from sftkey_dist.errors import ConfigError
from sftkey_dist.training.flops import PEAK_TFLOPS

GIB = 2**30


@dataclass(frozen=True)
class Accelerator:
    """One device.

    Attributes:
        name: as `--gpu` takes it.
        memory_gib: usable memory.
        peak_tflops: dense products in the precision that it trains in.
        memory_gb_per_second: bandwidth of its memory.
        link_gb_per_second: to its neighbours in the node, one way.
        float32_tflops: dense products in float32.
        product_efficiency: share of the peak that matrix products reach.
        attention_efficiency: share of the peak that attention reaches.
        process_gib: memory that a rank takes before it holds a weight: libraries, contexts, communicators.
        compute_bytes: of a weight or activation.
        overlaps_communication: whether collectives run beside computation.
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

    def training_in(self, precision: Literal["float32", "bfloat16"]) -> "Accelerator":
        """The device as it trains in this precision."""
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
was measured on one of them."""


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
    """

    nodes: int
    gpus_per_node: int
    accelerator: Accelerator
    network_gbps: float = 400.0
    price_per_gpu_hour: float | None = None
    storage_gb_per_second: float = 2.0

    @property
    def ranks(self) -> int:
        """World size."""
        return self.nodes * self.gpus_per_node

    @property
    def bandwidth_bytes_per_second(self) -> float:
        """Of a ring over all ranks: what enters a node passes its network once, and goes on over the links within."""
        link, network = self.accelerator.link_gb_per_second * 1e9, self.network_gbps / 8 * 1e9
        return link if self.nodes == 1 else min(link, network)


def find_accelerator(name: str) -> Accelerator:
    """
    Raises:
        ConfigError: nobody knows it.
    """
    if name not in ACCELERATORS:
        raise ConfigError(f"--gpu {name}: known are {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]
