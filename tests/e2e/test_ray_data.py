"""Preparation on the nodes of a Ray cluster makes the store that one machine makes."""

import json

import pytest

from sftkey_dist.data.memos import generate_memos
from sftkey_dist.data.store import EncodedStore
from tests.e2e.conftest import error_line
from tests.e2e.ray_nodes import ray_cluster


@pytest.fixture(scope="module")
def address():
    with ray_cluster(num_nodes=2) as address:
        yield address


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


def test_a_bad_row_met_on_a_node_is_one_line(sftkey, tiny_config, tmp_path, address):
    write_memos(tmp_path / "rows.jsonl", broken='{"prompt": "p"}\n')
    arguments = ("data.train={adapter: records, path: rows.jsonl}", "data.max_bad_row_share=0")
    done = sftkey("prepare", tiny_config, *arguments, f"cluster.address={address}")
    assert done.returncode == 2
    assert "rows.jsonl:61: missing_field" in error_line(done)
    assert not (tmp_path / "runs").exists()
