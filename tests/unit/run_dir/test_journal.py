import os

import pytest

from sftkey_dist.errors import DataError
from sftkey_dist.run_dir.journal import JournalTail, append_event, append_records, keep_records, read_records


def steps(records):
    return [record["step"] for record in records]


def test_a_journal_is_followed_record_by_record(tmp_path):
    file = tmp_path / "metrics.jsonl"
    tail = JournalTail(file)
    assert tail.new_records() == []
    append_records(file, [{"step": 0}, {"step": 1}])
    with file.open("a") as stream:
        stream.write('{"ste')
    assert steps(tail.new_records()) == [0, 1]
    assert tail.new_records() == []
    with file.open("a") as stream:
        stream.write('p": 2}\n')
    assert steps(tail.new_records()) == [2]


@pytest.mark.parametrize("regrown", [0, 3, 30])
def test_a_follower_starts_over_when_the_journal_is_cut_however_fast_it_grows_again(tmp_path, regrown):
    file = tmp_path / "metrics.jsonl"
    append_records(file, [{"step": step} for step in range(6)])
    tail = JournalTail(file)
    tail.new_records()
    keep_records(file, lambda record: record["step"] < 4)
    append_records(file, [{"step": 4 + step} for step in range(regrown)])
    assert steps(tail.new_records()) == list(range(4 + regrown))


def test_a_torn_last_line_is_cut_off_before_writing_goes_on(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0}\n{"ste')
    keep_records(file, lambda record: True)
    append_records(file, [{"step": 1}])
    assert steps(read_records(file)) == [0, 1]


@pytest.mark.parametrize("text", ["a\u2028b", "a\u0085b", "a\x1cb", "a\nb\r\nc", "\x00", "🙂"])
def test_any_text_survives(tmp_path, text):
    file = tmp_path / "records.jsonl"
    append_records(file, [{"output": text}] * 2)
    keep_records(file, lambda record: True)
    assert read_records(file) == [{"output": text}] * 2


def test_an_event_begins_a_line_of_its_own_after_one_that_was_cut_off(tmp_path):
    journal = tmp_path / "events.jsonl"
    append_event(journal, "first", "one")
    with journal.open("a") as file:
        file.write('{"event": "torn", "mess')
    append_event(journal, "second", "two")
    assert [record["message"] for record in read_records(journal)] == ["one", "two"]
    append_event(tmp_path / "missing" / "events.jsonl", "third", "three")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\0" * 40, r"damaged \(NULs\)"),
        (b'{"step": 1, "lo', "damaged"),
        (b'{"step": 1}{"step": 2}', "damaged"),
        (b'{"step": "\xff"}', "damaged"),
        (b"[" * 200_000, "damaged"),
        (b"3", "not a JSON object"),
    ],
)
def test_a_broken_line_is_named_with_its_number_wherever_it_is_read(tmp_path, line, message):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 0}\n' + line + b'\n{"step": 2}\n')
    for read in (
        lambda: read_records(file, "do this"),
        lambda: keep_records(file, lambda record: True, "do this"),
    ):
        with pytest.raises(DataError, match=rf"metrics\.jsonl:2: the line is {message}.*; do this$") as raised:
            read()
        assert len(str(raised.value)) < 500
    assert file.read_bytes().count(b"\n") == 3, "nothing was dropped"


def test_a_follower_counts_lines_over_its_calls(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_records(file, [{"step": 0}, {"step": 1}])
    tail = JournalTail(file)
    tail.new_records()
    with file.open("ab") as stream:
        stream.write(b'{"step": 2}\nbroken\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:4: "):
        tail.new_records()


def test_nuls_behind_the_last_line_are_one_that_was_being_written(tmp_path):
    """What a loss of power leaves of a line: its length is on disk, its bytes are not."""
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 0}\n' + b"\0" * 30)
    assert steps(read_records(file)) == [0]
    append_event(file, "after", "it")
    assert len(read_records(file)) == 2


def test_a_pipe_in_a_journals_place_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        read_records(tmp_path / "metrics.jsonl")
