"""Judges what was measured of the nodes. Pure functions over records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.preflight.rates import RATES, Rate
from sftkey_dist.preflight.records import Exchange, NodeCheck

_MIN_SHARE_OF_MEDIAN = 0.5
_MAX_SECONDS_APART = 1.0


@dataclass(frozen=True)
class Finding:
    """A problem of a node.

    Attributes:
        message: the node's address, what is wrong, and what to do.
        is_error: whether training could not work.
    """

    message: str
    is_error: bool = False


def findings_of(
    nodes: Sequence[NodeCheck], exchange: Exchange | None, versions: Mapping[str, str], folder: Path
) -> list[Finding]:
    """Everything that is wrong or slow, errors first.

    Args:
        nodes: what was measured of each.
        exchange: what was measured between them.
        versions: what is installed on the driver.
        folder: the run directory.
    """
    found = [finding for node in nodes for finding in _of_node(node, versions, folder)]
    found += [finding for rate in RATES for finding in _of_rate(nodes, rate)]
    if exchange is not None and exchange.problem:
        found.append(
            Finding(
                f"an all-reduce between the nodes failed ({exchange.problem}); ranks need one in every step: open all "
                f"ports between the nodes, and set cluster.network_interface to the interface that connects them"
            )
        )
    return sorted(found, key=lambda finding: not finding.is_error)


def _of_node(node: NodeCheck, versions: Mapping[str, str], folder: Path) -> Iterable[Finding]:
    """What is wrong with a node, whatever the others are."""
    yield from _of_software(node, versions)
    yield from _of_storage(node, folder)
    yield from _of_clock(node)
    yield from _of_devices(node)
    if node.is_broken:
        yield Finding(f"{node.address}: {node.problem}; repair the node, or take it out of the cluster", is_error=True)
    elif node.problem:
        yield Finding(
            f"{node.address}: {node.problem}; if ranks do not start there within cluster.start_timeout_seconds, take "
            f"the node out of the cluster"
        )


def _of_software(node: NodeCheck, versions: Mapping[str, str]) -> Iterable[Finding]:
    there = node.software.versions if node.software else versions
    differ = [
        f"{name} {there.get(name, 'is missing')}, the driver has {ours}"
        for name, ours in versions.items()
        if there.get(name) != ours
    ]
    if differ:
        yield Finding(
            f"{node.address}: {', '.join(differ)}; install the same versions on all nodes",
            is_error=True,
        )


def _of_storage(node: NodeCheck, folder: Path) -> Iterable[Finding]:
    if node.storage is None:
        return
    hidden = () if node.storage.is_visible else (str(folder),)
    for unseen in (*hidden, *node.storage.unseen):
        yield Finding(
            f"{unseen}: not on storage that all nodes share, {node.address} cannot see it; set run_dir, "
            f"data.store_dir and model.path to folders on a shared file system",
            is_error=True,
        )
    if node.storage.problem:
        yield Finding(
            f"{folder}: {node.address} cannot write there ({node.storage.problem}); make room, allow its user to "
            f"write, or choose another run_dir",
            is_error=True,
        )
    elif node.storage.is_visible and not node.is_seen:
        yield Finding(
            f"{folder}: not on storage that all nodes share, the driver cannot see what {node.address} writes there; "
            f"set run_dir to a folder on a shared file system",
            is_error=True,
        )


def _of_clock(node: NodeCheck) -> Iterable[Finding]:
    clock = node.clock
    if clock and abs(clock.ahead_seconds) > _MAX_SECONDS_APART + clock.uncertainty_seconds:
        side = "ahead of" if clock.ahead_seconds > 0 else "behind"
        yield Finding(
            f"{node.address}: its clock is {abs(clock.ahead_seconds):.1f} s {side} the driver's (to within "
            f"{clock.uncertainty_seconds:.3f} s); synchronize the clocks of all nodes, for example with chrony"
        )


def _of_devices(node: NodeCheck) -> Iterable[Finding]:
    if node.speeds is None:
        return
    if len(node.speeds.accelerators) < node.num_gpus:
        yield Finding(
            f"{node.address}: Ray reserved {node.num_gpus} accelerators, and torch sees "
            f"{len(node.speeds.accelerators)}; see nvidia-smi and the kernel's log there"
        )
    for speed in (node.speeds.core, *node.speeds.accelerators):
        if speed.problem:
            yield Finding(
                f"{node.address}: {speed.problem}; see what else runs there, or take the node out of the cluster",
                is_error=speed.is_wrong,
            )


def _of_rate(nodes: Sequence[NodeCheck], rate: Rate) -> Iterable[Finding]:
    """Nodes that are much slower than most."""
    usual = rate.median_of(nodes)
    for node in nodes:
        slowest = min(rate.of(node), default=usual)
        if slowest < _MIN_SHARE_OF_MEDIAN * usual:
            yield Finding(
                f"{node.address}: {rate.words} {rate.in_words(slowest)}, and the median of the nodes is "
                f"{rate.in_words(usual)}; all ranks wait for the slowest: see what else runs there, or take the node "
                f"out of the cluster"
            )
