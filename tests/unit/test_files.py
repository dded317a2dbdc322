import pytest

from sftkey_dist.files import folder_written_whole, write_json_atomically, write_text_atomically


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
