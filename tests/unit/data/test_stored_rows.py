"""The rows that a store was made from are found again, and rows that have changed since are told."""

import json

import pytest

from sftkey_dist.config.data import DataConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.building.task import Encoding
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.data.stored_rows import encoded_row, stored_rows
from sftkey_dist.errors import DataError


def write(file, memos, reasoning=""):
    rows = [{"prompt": memo.prompt, **memo.values, "reasoning": memo.values["reasoning"] + reasoning} for memo in memos]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def stored(tmp_path, memos, contract, tiny_model):
    """A mixture: one file twice, once with a weight, and rows that are too long."""
    write(tmp_path / "rows.jsonl", memos[:20])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "Long?", "reasoning": "so " * 900, "answer": "yes"}) + "\n")
    source = {"adapter": "records", "path": str(tmp_path / "rows.jsonl"), "name": "same"}
    data = DataConfig(
        train=[source, source | {"weight": 1.5}],
        test={"adapter": "decision_memos", "split": "test", "limit": 1},
        store_dir=tmp_path / "store",
        num_workers=1,
        shard_rows=7,
    )
    return data, prepare_store("train", data, Encoding(Form.TAGGED, contract, PromptConfig(), 512, tiny_model, False))


def test_every_example_of_a_store_is_found_again_in_order(stored, contract, memos):
    data, store = stored
    rows = list(stored_rows(data, contract, store))
    assert [index for row in rows for index in row.indices] == list(range(len(store)))
    assert len(rows) == 40
    assert {len(row.indices) for row in rows[20:]} == {1, 2}
    assert [row.example.prompt for row in rows] == [memo.prompt for memo in memos[:20]] * 2
    assert {(row.source, row.example.data_set) for row in rows} == {(0, "1 same"), (1, "2 same")}
    for row in rows:
        encoded = encoded_row(store, row)
        ids, segments = store.example(row.indices[-1])
        assert (encoded.id, encoded.input_ids, encoded.segment_ids) == (row.example.id, ids.tolist(), segments.tolist())


def test_rows_of_a_file_that_was_moved_are_found(stored, contract, tmp_path):
    data, store = stored
    (tmp_path / "new").mkdir()
    moved = str((tmp_path / "rows.jsonl").rename(tmp_path / "new" / "rows.jsonl"))
    there = data.model_copy(update={"train": tuple(s.model_copy(update={"path": moved}) for s in data.train)})
    rows = list(stored_rows(there, contract, store))
    assert [index for row in rows for index in row.indices] == list(range(len(store)))
    assert rows[0].example.id == f"{moved}:1"


def test_rows_that_have_changed_are_told(stored, contract, memos, tmp_path):
    data, store = stored
    write(tmp_path / "rows.jsonl", memos[:20], reasoning=" Changed.")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the row is not what it was when it was encoded; delete"):
        list(stored_rows(data, contract, store))
