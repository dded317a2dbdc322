"""What is said of nodes, from what was measured of them."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sftkey_dist.preflight.findings import findings_of
from sftkey_dist.preflight.records import Clock, NodeCheck, Software, Speed, Speeds, Storage
from sftkey_dist.preflight.table import in_one_line, nodes_table
from sftkey_dist.report.numbers import UNKNOWN

VERSIONS = {"python": "3.12", "torch": "2.13.0", "code": "5c0ffee"}
FAST = Storage(free_bytes=2**40, written_bytes_per_second=4e8, read_bytes_per_second=9e8)
WELL = NodeCheck(
    address="10.0.0.1",
    clock=Clock(0.001, 0.0005),
    received_bytes_per_second=1e9,
    software=Software(VERSIONS, 2**34),
    storage=FAST,
    speeds=Speeds(Speed(5e10)),
)


def among_others(number=3, **changes) -> list[NodeCheck]:
    """Nodes that are well, and one with an address of its own that differs from them."""
    return [*(replace(WELL, address=f"10.0.0.{n}") for n in range(1, number)), replace(WELL, address="sick", **changes)]


def messages(nodes, is_error):
    found = findings_of(nodes, None, VERSIONS, Path("/shared/run"))
    assert all(finding.is_error is is_error for finding in found), found
    return [finding.message for finding in found]


def test_nodes_that_are_well_have_no_finding_and_one_line():
    nodes = among_others(number=4)
    assert findings_of(nodes, None, VERSIONS, Path("run")) == []
    assert in_one_line(nodes, None, 3.14) == (
        "4 nodes checked in 3.1 s: same versions, clocks within 0.001 s, shared storage; writes 400 MB/s, "
        "reads 900 MB/s, receives 1,000 MB/s, a core 50 GFLOP/s"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"software": Software({**VERSIONS, "torch": "2.12.0"}, 0)},
            "sick: torch 2.12.0, the driver has 2.13.0; install the same versions on all nodes",
        ),
        ({"software": Software({"python": "3.12", "code": "5c0ffee"}, 0)}, "sick: torch is missing, the driver has"),
        ({"software": Software({**VERSIONS, "code": "0ddc0de"}, 0)}, "sick: code 0ddc0de, the driver has 5c0ffee"),
        (
            {"storage": Storage(is_visible=False), "is_seen": False},
            "/shared/run: not on storage that all nodes share, sick cannot see it; set run_dir",
        ),
        ({"storage": Storage(unseen=("/store",))}, "/store: not on storage that all nodes share, sick cannot see it"),
        (
            {"is_seen": False},
            "/shared/run: not on storage that all nodes share, the driver cannot see what sick writes",
        ),
        ({"storage": Storage(problem="No space left on device")}, "sick cannot write there (No space left on device)"),
        ({"speeds": Speeds(Speed(problem="a product on cuda:3 is wrong", is_wrong=True))}, "sick: a product on cuda:3"),
        ({"problem": "failed while starting a process (no module)", "is_broken": True}, "sick: failed while starting"),
    ],
)
def test_what_training_could_not_work_with_is_an_error_that_names_the_node(changes, message):
    (found,) = messages(among_others(**changes), is_error=True)
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clock": Clock(-3.0, 0.002)}, "sick: its clock is 3.0 s behind the driver's (to within 0.002 s)"),
        ({"clock": Clock(90.0, 0.5)}, "sick: its clock is 90.0 s ahead of the driver's"),
        (
            {"speeds": Speeds(Speed(2e10))},
            "sick: one core multiplies matrices at 20 GFLOP/s, and the median of the nodes is 50 GFLOP/s",
        ),
        (
            {"storage": replace(FAST, written_bytes_per_second=3e6)},
            "sick: it writes to the run directory at 3 MB/s, and the median of the nodes is 400 MB/s",
        ),
        (
            {"storage": replace(FAST, read_bytes_per_second=3.2e6)},
            "sick: it reads from the run directory at 3.2 MB/s",
        ),
        ({"received_bytes_per_second": 1e8}, "sick: it receives from the driver at 100 MB/s"),
        ({"num_gpus": 8}, "sick: Ray reserved 8 accelerators, and torch sees 0"),
        ({"speeds": Speeds(Speed(5e10), (Speed(problem="cuda:0 is busy"),))}, "sick: cuda:0 is busy"),
        (
            {"problem": "had not finished multiplying matrices after 18 s", "speeds": None},
            "sick: had not finished multiplying matrices after 18 s; if ranks do not start there",
        ),
    ],
)
def test_what_is_slow_is_a_warning_that_names_the_node_and_the_figure(changes, message):
    (found,) = messages(among_others(**changes), is_error=False)
    assert message in found


def test_a_slow_accelerator_is_found_among_many_and_on_one_node():
    fast, slow = Speed(7e14), Speed(2e14)
    nodes = [replace(WELL, num_gpus=4, speeds=Speeds(Speed(5e10), (fast, fast, slow, fast)))]
    (found,) = messages(nodes, is_error=False)
    assert "10.0.0.1: an accelerator multiplies matrices at 200 TFLOP/s, and the median of the nodes is 700" in found


@pytest.mark.parametrize(
    "changes",
    [
        {"clock": Clock(1.4, 0.5)},  # no further apart than could be measured
        {"received_bytes_per_second": None},  # the driver's own node
        {"speeds": Speeds(Speed(2.6e10))},
        {"software": None, "storage": None, "clock": None, "speeds": None},
    ],
)
def test_what_is_not_measured_and_what_is_usual_is_no_finding(changes):
    assert messages(among_others(**changes), is_error=False) == []


def test_errors_come_before_warnings():
    nodes = [replace(WELL, clock=Clock(9.0, 0.0)), *among_others(is_seen=False)]
    assert [finding.is_error for finding in findings_of(nodes, None, VERSIONS, Path("run"))] == [True, False]


def test_the_table_has_a_line_per_node_and_a_dash_for_what_a_node_did_not_answer():
    file = io.StringIO()
    Console(file=file, width=80).print(nodes_table(among_others(number=2, speeds=None, clock=None)))
    table = file.getvalue()
    assert "2 nodes" in table
    assert "GFLOP/s" in table
    assert "TFLOP/s" not in table
    (sick,) = [line for line in table.splitlines() if line.strip().startswith("sick")]
    assert sick.split() == ["sick", UNKNOWN, "16.0", "1,024.0", "400", "900", "1,000", UNKNOWN]
