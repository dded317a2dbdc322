"""Preparation on the nodes of a Ray cluster makes the store that one machine makes; and the check of these nodes."""

import datetime
import json
import re
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.models.load import load_tokenizer
from tests.e2e.conftest import environment, error_line
from tests.e2e.ray_nodes import ray_nodes


@pytest.fixture(scope="module")
def nodes():
    with ray_nodes(num_nodes=2) as nodes:
        yield nodes


@pytest.fixture
def address(nodes):
    return nodes.address


def write_memos(path, broken=""):
    rows = [{"prompt": memo.prompt, **memo.values} for memo in generate_memos("train", 60, seed=0)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n" + broken)


def test_nodes_make_the_same_store_as_one_machine(sftkey, tiny_config, tmp_path, address):
    write_memos(tmp_path / "rows.jsonl")
    train = "data.train={adapter: records, path: rows.jsonl}"
    stores = []
    for place in (f"cluster.address={address}", "cluster.num_workers=1"):
        folder = f"store-{len(stores)}"
        done = sftkey("prepare", tiny_config, train, place, f"data.store_dir={folder}", "data.shard_rows=7")
        assert done.returncode == 0, done.stderr
        (path,) = [path for path in (tmp_path / folder).iterdir() if not path.name.startswith(".")]
        stores.append(EncodedStore(path))
    nodes, machine = stores
    assert nodes.digest == machine.digest
    assert len(nodes) == len(machine) == 60
    assert len(list((nodes.path / "parts").iterdir())) == 9
    for index in range(60):
        assert all((a == b).all() for a, b in zip(nodes.example(index), machine.example(index), strict=True))


def test_nodes_read_a_folder_of_typed_columns_as_one_machine_does(sftkey, tiny_config, tiny_model, tmp_path, address):
    """Decimals, dates, float32 and integers with gaps, in files of their own."""
    (tmp_path / "rows").mkdir()
    columns = {
        "decimal": pa.array([Decimal("12.50")], pa.decimal128(10, 2)),
        "date": pa.array([datetime.date(2024, 1, 31)]),
        "float32": pa.array([12.1], pa.float32()),
        "gaps": pa.array([42.0, None]),
    }
    for name, answers in columns.items():
        texts = [f"{name} {i}" for i in range(len(answers))]
        table = pa.table({"prompt": texts, "reasoning": texts, "answer": answers})
        pq.write_table(table, tmp_path / "rows" / f"{name}.parquet")
    data = ("data.train={adapter: records, path: rows}", "data.max_bad_row_share=0.5", "data.shard_rows=1")
    answers = []
    for place in (f"cluster.address={address}", "cluster.num_workers=1"):
        folder = f"typed-{len(answers)}"
        done = sftkey("prepare", tiny_config, *data, place, f"data.store_dir={folder}")
        assert done.returncode == 0, done.stderr
        assert "1 dropped as missing_field" in done.stdout
        (path,) = [path for path in (tmp_path / folder).iterdir() if not path.name.startswith(".")]
        answers.append(answers_of(EncodedStore(path), load_tokenizer(tiny_model)))
    assert answers == [["2024-01-31", "12.50", "12.1", "42"]] * 2


def answers_of(store, tokenizer):
    number = store.segment_names.index("answer")
    examples = map(store.example, range(len(store)))
    return [tokenizer.decode(ids[segments == number].tolist()) for ids, segments in examples]


def test_a_bad_row_met_on_a_node_is_one_line(sftkey, tiny_config, tmp_path, address):
    write_memos(tmp_path / "rows.jsonl", broken='{"prompt": "p"}\n')
    arguments = ("data.train={adapter: records, path: rows.jsonl}", "data.max_bad_row_share=0")
    done = sftkey("prepare", tiny_config, *arguments, f"cluster.address={address}")
    assert done.returncode == 2
    assert "rows.jsonl:61: missing_field" in error_line(done)
    assert not (tmp_path / "runs").exists()


def test_nodes_are_measured_and_nothing_is_left(sftkey, tiny_config, tmp_path, address):
    done = sftkey("preflight", tiny_config, f"cluster.address={address}")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\d+\.\d+\.\d+\.\d+ +[+-]0\.\d", done.stdout)) == 2, done.stdout
    is_well = re.search(r"^2 nodes checked in \d+\.\d s: same versions, clocks within 0\.", done.stdout, re.MULTILINE)
    assert is_well or "the median of the nodes is" in done.stdout, done.stdout  # tests beside this one make nodes slow
    assert "an all-reduce between the nodes failed" not in done.stdout
    assert not (tmp_path / "runs").exists()


def test_workers_that_wait_for_others_say_so_and_start_when_these_end(sftkey, tiny_config, address):
    """Another program holds one of the two CPUs when the workers of a finished preparation are to start."""
    settings = [f"cluster.address={address}", "cluster.num_workers=2", "strategies=[sft]", "optimization.max_steps=2"]
    assert sftkey("prepare", tiny_config, *settings).returncode == 0
    script = f"""
import time, ray
ray.init("{address}", log_to_driver=False)
holder = ray.remote(type("Holder", (), {{"hold": lambda self: time.sleep(45)}})).options(num_cpus=1).remote()
done = holder.hold.remote()
print("held", flush=True)
ray.get(done)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as holder:
        assert "held" in holder.stdout.readline()
        done = sftkey("train", tiny_config, *settings)
    assert done.returncode == 0, done.stderr
    assert "other work uses 1 of 2 CPU cores; the workers start when enough are free" in done.stdout


def test_a_node_that_hangs_is_named_and_the_others_are_measured(tmp_path, nodes):
    script = f"""
from pathlib import Path
from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.pipeline.preflight import check

with connected(ClusterConfig(address="{nodes.address}"), num_workers=1):
    check(Path("run"), [], ClusterConfig(), most_seconds=4, most_seconds_to_start=4)
"""
    with nodes.last_one_frozen():
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^warning: \S+: had not finished starting a process after 4 s", done.stdout, re.MULTILINE), (
        done.stdout
    )
    assert not list((tmp_path / "run").iterdir())
