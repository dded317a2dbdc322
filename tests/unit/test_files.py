import pytest

from sftkey_dist.files import folder_written_whole, write_json_atomically, write_text_atomically
from sftkey_dist.monitor import JournalTail, read_journal


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


def test_a_journal_is_followed_line_by_line_and_over_a_resume(tmp_path):
    file = tmp_path / "metrics.jsonl"
    tail = JournalTail(file)
    assert tail.new_records() == []
    file.write_text('{"step": 0}\n{"step": 1}\n{"ste')
    assert [record["step"] for record in tail.new_records()] == [0, 1]
    assert tail.new_records() == []
    with file.open("a") as stream:
        stream.write('p": 2}\n')
    assert [record["step"] for record in tail.new_records()] == [2]
    file.write_text('{"step": 0}\n')  # a resumed stage drops the steps that it will run again
    assert [record["step"] for record in tail.new_records()] == [0]
    assert [record["step"] for record in read_journal(file)] == [0]
