import json
from collections import Counter

import pytest

from sftkey_dist.config.schema import SourceConfig
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.memos import decide, generate_memos
from sftkey_dist.data.prepare import read_source
from sftkey_dist.data.sources import read_examples
from sftkey_dist.errors import DataError

GSM8K_ROW = {
    "question": "Natalia sold clips to 48 of her friends. How many in all?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
}


def write_rows(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return SourceConfig(adapter="gsm8k", path=str(path))


def test_gsm8k_strips_calculator_marks_and_splits_at_the_last_line(tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW])
    (example,) = read_examples(source)
    assert example.prompt == GSM8K_ROW["question"]
    assert example.values == {
        "reasoning": "Natalia sold 48/2 = 24 clips in May.\nIn all 48+24 = 72.",
        "answer": "72",
    }
    assert example.id == f"{tmp_path / 'rows.jsonl'}:1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "answer": "no final line"}, "no_answer"),
        ({"question": "q", "answer": "reasoning\n#### "}, "no_answer"),
        ({"question": "q", "answer": "#### 3"}, "no_reasoning"),
        ({"question": "q"}, "missing_field"),
        ({"question": None, "answer": "a\n#### 1"}, "missing_field"),
        ({"question": " ", "answer": "a\n#### 1"}, "empty_field"),
        ({"question": "half \ud800", "answer": "a\n#### 1"}, "not_unicode"),
        ('{"question": "q", ', "invalid_json"),
        ("[1, 2]", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
    ],
)
def test_malformed_rows_are_refused_with_reason_and_place(tmp_path, row, reason):
    source = write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW, row])
    good, bad = read_examples(source)
    assert isinstance(good, Example)
    assert isinstance(bad, Refusal)
    assert bad.reason == reason
    assert bad.id.endswith("rows.jsonl:2")


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GSM8K_ROW).encode() + b"\n\xff\xfe\n")
    _, bad = read_examples(SourceConfig(adapter="gsm8k", path=str(path)))
    assert bad.reason == "not_utf8"


def test_a_malformed_row_stops_unless_a_share_is_allowed(tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW] * 99 + [{"question": "q", "answer": "none"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:100: no_answer: .*1 of 100 rows"):
        read_source("train", source, max_bad_row_share=0.0)
    data = read_source("train", source, max_bad_row_share=0.01)
    assert (len(data.examples), len(data.refusals)) == (99, 1)


@pytest.mark.parametrize("name", ["nowhere.jsonl", "table.parquet"])
def test_files_that_cannot_be_read_are_named(tmp_path, name):
    if name == "table.parquet":
        (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=name):
        read_source("train", SourceConfig(adapter="gsm8k", path=str(tmp_path / name)), 0.0)


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no usable row"):
        read_source("train", SourceConfig(adapter="gsm8k", path=str(tmp_path / "rows.jsonl")), 0.0)


def test_memo_splits_are_seeded_distinct_and_disjoint():
    train, test = (list(generate_memos(split, 1500, seed=3)) for split in ("train", "test"))
    prompts = [memo.prompt for memo in train + test]
    assert len(set(prompts)) == len(prompts) == 3000
    assert train == list(generate_memos("train", 1500, seed=3))
    assert train != list(generate_memos("train", 1500, seed=4))


def test_memo_decisions_are_mixed_and_reasoning_is_long_and_does_not_name_them():
    memos = list(generate_memos("train", 1000, seed=0))
    decisions = Counter(memo.values["answer"] for memo in memos)
    assert set(decisions) == {"approve", "review", "reject"}
    assert max(decisions.values()) < 500
    assert len({memo.values["reasoning"] for memo in memos}) == 1000
    for memo in memos:
        words = memo.values["reasoning"].split()
        assert len(words) > 30
        assert not set(decisions) & {word.strip(".,").lower() for word in words}


@pytest.mark.parametrize(
    ("levels", "decision"),
    [
        ({"income": 0, "debt": 0, "payments": 0, "security": 0}, "approve"),
        ({"income": 0, "debt": 0, "payments": 2, "security": 2}, "reject"),
        ({"income": 1, "debt": 1, "payments": 1, "security": 1}, "review"),
        ({"income": 2, "debt": 2, "payments": 1, "security": 1}, "reject"),
    ],
)
def test_the_rule_of_the_memos(levels, decision):
    assert decide(levels) == decision
