"""What a run does with what is found about the nodes."""

from pathlib import Path

import pytest

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.errors import ConfigError
from sftkey_dist.pipeline import preflight
from sftkey_dist.preflight.records import Clock, Exchange, NodeCheck, Storage

CLUSTER, EXCHANGE = ClusterConfig(), Exchange(2.5e8)
WELL = NodeCheck("10.0.0.1", clock=Clock(0.0, 0.0))


@pytest.fixture
def nodes(monkeypatch) -> list[NodeCheck]:
    """The nodes of a cluster that is only imagined."""
    nodes: list[NodeCheck] = []
    monkeypatch.setattr(preflight, "usable_nodes", lambda: nodes)
    monkeypatch.setattr(preflight, "check_nodes", lambda *_, **__: (nodes, EXCHANGE if len(nodes) > 1 else None))
    return nodes


def test_a_single_node_is_not_measured_before_a_run(nodes, capsys):
    nodes.append(NodeCheck("10.0.0.1", problem="hangs"))
    preflight.require_sound_nodes(Path("run"), [], CLUSTER)
    assert not capsys.readouterr().out


def test_nodes_that_are_well_are_one_line(nodes, capsys):
    nodes += [WELL, WELL]
    preflight.require_sound_nodes(Path("run"), [], CLUSTER)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("2 nodes checked in 0.")
    assert "same versions" in line
    assert line.endswith("all-reduce 250 MB/s")


def test_a_warning_names_the_node_and_lets_the_run_go_on(nodes, capsys):
    nodes += [WELL, NodeCheck("10.0.0.2", clock=Clock(5.0, 0.0))]
    preflight.require_sound_nodes(Path("run"), [], CLUSTER)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: 10.0.0.2: its clock is 5.0 s ahead")


def test_every_error_is_in_the_one_line_that_ends_the_run(nodes, capsys):
    hidden = Storage(is_visible=False)
    nodes += [NodeCheck("10.0.0.1", storage=hidden), NodeCheck("10.0.0.2", storage=hidden, clock=Clock(5.0, 0.0))]
    with pytest.raises(ConfigError) as error:
        preflight.require_sound_nodes(Path("/here/run"), [], CLUSTER)
    message = str(error.value)
    assert message.startswith("/here/run: not on storage that all nodes share, 10.0.0.1 cannot see it")
    assert "10.0.0.2 cannot see it" in message
    assert "\n" not in message
    assert "its clock is" in capsys.readouterr().out


def test_the_table_is_printed_before_an_error(nodes, capsys):
    nodes.append(NodeCheck("10.0.0.9", storage=Storage(problem="Read-only file system")))
    with pytest.raises(ConfigError, match=r"run: 10\.0\.0\.9 cannot write there \(Read-only file system\)"):
        preflight.check(Path("run"), [], CLUSTER, with_table=True)
    assert "10.0.0.9" in capsys.readouterr().out


def test_nodes_that_do_not_reach_each_other_are_warned_of(nodes, monkeypatch, capsys):
    """The driver reaches them all, so that nothing else shows it."""
    failed = Exchange(problem="Connection refused")
    monkeypatch.setattr(preflight, "check_nodes", lambda *_, **__: ([WELL, WELL], failed))
    nodes += [WELL, WELL]
    preflight.require_sound_nodes(Path("run"), [], CLUSTER)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: an all-reduce between the nodes failed (Connection refused)")
    assert "cluster.network_interface" in line
