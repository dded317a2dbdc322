import json
import math

import pytest

from sftkey_dist.files import folder_written_whole, write_json_atomically, write_text_atomically
from sftkey_dist.journal import append_records, read_records


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path):
    file = tmp_path / "x.json"
    write_text_atomically(file, "old")
    with pytest.raises(TypeError):
        write_json_atomically(file, {"bad": object()})
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail_halfway():
        with folder_written_whole(tmp_path / "a") as scratch:
            (scratch / "one").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []
    with folder_written_whole(tmp_path / "a") as scratch:
        (scratch / "one").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "one").read_text() == "1"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_first_of_two_writers_wins(tmp_path):
    with folder_written_whole(tmp_path / "a") as late:
        with folder_written_whole(tmp_path / "a") as early:
            (early / "who").write_text("early")
        (late / "who").write_text("late")
    assert (tmp_path / "a" / "who").read_text() == "early"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_no_finite_number_is_null_in_every_file(tmp_path):
    content = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, {"c": math.nan})], "d": "NaN", "e": True}
    known = {"a": None, "b": [1.5, None, [None, {"c": None}]], "d": "NaN", "e": True}
    write_json_atomically(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == known
    append_records(tmp_path / "x.jsonl", [content])
    assert read_records(tmp_path / "x.jsonl") == [known]
    assert (tmp_path / "x.jsonl").read_text().count("NaN") == 1
