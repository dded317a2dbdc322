"""The rates in which nodes are compared with each other."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sftkey_dist.preflight.records import NodeCheck, Speed


@dataclass(frozen=True)
class Rate:
    """A rate in which nodes are compared.

    Attributes:
        words: what a node does at this rate.
        heading: the same in a word or two.
        unit: unit in which it is shown.
        per_unit: that unit in bytes or floating-point operations a second.
        of: the rates of a node, one for each of its devices; empty if they were not measured.
    """

    words: str
    heading: str
    unit: str
    per_unit: float
    of: Callable[[NodeCheck], list[float]]

    def median_of(self, nodes: Sequence[NodeCheck]) -> float:
        """The median over all devices of all nodes; 0 if none was measured."""
        rates = self._all(nodes)
        return statistics.median(rates) if rates else 0.0

    def range_of(self, nodes: Sequence[NodeCheck]) -> str:
        """The lowest and the highest rate without the unit, such as ``38 to 41``; empty if none was measured."""
        rates = self._all(nodes)
        if not rates:
            return ""
        low, high = self._shown(min(rates)), self._shown(max(rates))
        return low if low == high else f"{low} to {high}"

    def in_words(self, rate: float) -> str:
        """A rate with its unit."""
        return f"{self._shown(rate)} {self.unit}"

    def _all(self, nodes: Sequence[NodeCheck]) -> list[float]:
        return [rate for node in nodes for rate in self.of(node)]

    def _shown(self, rate: float) -> str:
        amount = rate / self.per_unit
        return f"{amount:,.0f}" if amount >= 100 else f"{amount:.2g}"


def _written(node: NodeCheck) -> list[float]:
    return [rate] if node.storage and (rate := node.storage.written_bytes_per_second) else []


def _read(node: NodeCheck) -> list[float]:
    return [rate] if node.storage and (rate := node.storage.read_bytes_per_second) else []


def _received(node: NodeCheck) -> list[float]:
    return [] if node.received_bytes_per_second is None else [node.received_bytes_per_second]


def _core(node: NodeCheck) -> list[float]:
    return _measured(node.speeds.core) if node.speeds else []


def _accelerators(node: NodeCheck) -> list[float]:
    return [rate for speed in node.speeds.accelerators for rate in _measured(speed)] if node.speeds else []


def _measured(speed: Speed) -> list[float]:
    return [] if speed.problem else [speed.flops_per_second]


RATES = (
    Rate("it writes to the run directory at", "writes", "MB/s", 1e6, _written),
    Rate("it reads from the run directory at", "reads", "MB/s", 1e6, _read),
    Rate("it receives from the driver at", "receives", "MB/s", 1e6, _received),
    Rate("one core multiplies matrices at", "a core", "GFLOP/s", 1e9, _core),
    Rate("an accelerator multiplies matrices at", "a GPU", "TFLOP/s", 1e12, _accelerators),
)
