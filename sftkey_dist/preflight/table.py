"""Shows what was measured of the nodes, as a table and as one line."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sftkey_dist.preflight.rates import RATES
from sftkey_dist.preflight.records import Exchange, NodeCheck
from sftkey_dist.report.numbers import UNKNOWN

_GIB, _MB = 2**30, 10**6


def nodes_table(nodes: Sequence[NodeCheck]) -> Table:
    """A line per node; a dash is what a node did not answer."""
    rates = [rate for rate in RATES if rate.range_of(nodes)]
    table = Table(title=Text(_number_of(nodes)), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("node", overflow="fold")
    for heading in ("clock\ns", "memory\nGiB free", "disk\nGiB free", *(f"{r.heading}\n{r.unit}" for r in rates)):
        table.add_column(heading, justify="right")
    for node in nodes:
        table.add_row(
            Text(node.address),
            UNKNOWN if node.clock is None else f"{node.clock.ahead_seconds:+.3f}",
            _gib(node.software.free_memory_bytes if node.software else 0),
            _gib(node.storage.free_bytes if node.storage else 0),
            *(rate.range_of([node]) or UNKNOWN for rate in rates),
        )
    return table


def in_one_line(nodes: Sequence[NodeCheck], exchange: Exchange | None, seconds: float) -> str:
    """What was measured, for nodes that are all well."""
    apart = max((abs(node.clock.ahead_seconds) for node in nodes if node.clock), default=0.0)
    rates = [f"{rate.heading} {span} {rate.unit}" for rate in RATES if (span := rate.range_of(nodes))]
    if exchange is not None:
        rates.append(f"all-reduce {exchange.bytes_per_second / _MB:,.0f} MB/s")
    in_use = sum(node.num_gpus_in_use for node in nodes)
    if in_use:
        rates.append(f"{in_use} accelerators in use were not measured")
    return (
        f"{_number_of(nodes)} checked in {seconds:.1f} s: same versions, clocks within {apart:.3f} s, shared storage; "
        + ", ".join(rates)
    )


def _number_of(nodes: Sequence[NodeCheck]) -> str:
    return f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:,.1f}" if num_bytes else UNKNOWN
