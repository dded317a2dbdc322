"""Checks the nodes of a cluster before the first stage, and says what is wrong with them."""

import time
from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.cluster.connection import usable_nodes
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError
from sftkey_dist.preflight.findings import findings_of
from sftkey_dist.preflight.nodes import MAX_SECONDS, MAX_SECONDS_TO_START, check_nodes
from sftkey_dist.preflight.probe import installed_versions
from sftkey_dist.preflight.table import in_one_line, nodes_table


def require_sound_nodes(folder: Path, read: Sequence[Path], cluster: ClusterConfig) -> None:
    """Check the nodes of the connected cluster if there are several.

    Args:
        folder: folder that all nodes write to.
        read: folders that all nodes read. Their names identify their content.
        cluster: says how ranks communicate.

    Raises:
        ConfigError: a node lacks the storage or the versions that training needs, or computes wrongly.
    """
    if len(usable_nodes()) > 1:
        check(folder, read, cluster)


def check(
    folder: Path,
    read: Sequence[Path],
    cluster: ClusterConfig,
    *,
    with_table: bool = False,
    most_seconds: float = MAX_SECONDS,
    most_seconds_to_start: float = MAX_SECONDS_TO_START,
) -> None:
    """Measure all nodes, print what is slow or wrong, and one line if nothing is.

    Args:
        folder: folder that all nodes write to.
        read: folders that all nodes read. Their names identify their content.
        cluster: says how ranks communicate.
        with_table: whether to print every measurement too.
        most_seconds: time in which a node must have answered, once it has started a process.
        most_seconds_to_start: time to start it.

    Raises:
        ConfigError: see `require_sound_nodes`.
    """
    started = time.perf_counter()
    environment = cluster.network_environment() | cluster.environment
    on_accelerators = cluster.gpus_per_worker > 0
    limits = (most_seconds, most_seconds_to_start)
    nodes, exchange = check_nodes(folder, read, environment, *limits, on_accelerators=on_accelerators)
    seconds = time.perf_counter() - started
    if with_table:
        console.print(nodes_table(nodes))
    findings = findings_of(nodes, exchange, installed_versions(), folder)
    for finding in findings:
        if not finding.is_error:
            console.print(f"warning: {finding.message}", soft_wrap=True, markup=False)
    if errors := [finding.message for finding in findings if finding.is_error]:
        raise ConfigError("; ".join(errors))
    if not findings:
        console.print(in_one_line(nodes, exchange, seconds), soft_wrap=True, markup=False)
