"""One conversion by type: what is trained is what a person reads in the source, whichever reader it comes from."""

import datetime
import json
import uuid
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.contract import ResponseContract, Segment
from sftkey_dist.data.adapters.sources import read_examples
from sftkey_dist.data.adapters.values import NoTextError, text_of
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.rows.shards import find_shards, read_shard
from sftkey_dist.errors import DataError

DAY = datetime.date(2024, 1, 31)
TIME = datetime.datetime(2024, 1, 31, 9, 5)
UTC = datetime.UTC
NESTED = pa.struct([("score", pa.float32()), ("day", pa.date32()), ("price", pa.decimal128(10, 2))])


def answers(path, **keys):
    """Of every row the answer, or the reason of its refusal."""
    source = SourceConfig(adapter="records", path=str(path), **keys)
    items = [item for shard in find_shards(source, 2) for item in read_examples(source, ResponseContract(), shard)]
    return [item.reason if isinstance(item, Refusal) else item.values["answer"] for item in items]


def table(answers):
    prompts = [f"p{i}" for i in range(len(answers))]
    return pa.table({"prompt": prompts, "reasoning": ["r"] * len(answers), "answer": answers})


@pytest.fixture(params=["parquet", "arrow", "indexed.arrow", "folder"])
def write(request, tmp_path):
    """Write a column of answers in a binary format; returns the source's path."""

    def make(column):
        content = table(column)
        path = tmp_path / f"rows.{request.param}"
        if request.param.endswith("arrow"):
            with (pa.ipc.new_file if "indexed" in request.param else pa.ipc.new_stream)(path, content.schema) as out:
                out.write_table(content)
        else:
            path = path / "part.parquet" if request.param == "folder" else path
            path.parent.mkdir(exist_ok=True)
            pq.write_table(content, path)
        return tmp_path / f"rows.{request.param}"

    return make


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["yes", "2024-01-31T00:00:00Z", "007"]), ["yes", "2024-01-31T00:00:00Z", "007"]),
        (pa.array([42, -7], pa.int32()), ["42", "-7"]),
        (pa.array([2**63 + 1], pa.uint64()), ["9223372036854775809"]),
        (pa.array([42.0, float("nan"), 7.0]), ["42", "missing_field", "7"]),
        (pa.array([42.0, None, 7.0]), ["42", "missing_field", "7"]),
        (pa.array([0.1, 2.5, 1e300, 1e-7]), ["0.1", "2.5", "1e+300", "1e-07"]),
        (pa.array([float("inf"), float("-inf")]), ["not_finite"] * 2),
        (pa.array([12.1, 7.0, None], pa.float32()), ["12.1", "7", "missing_field"]),
        (pa.array([float("nan")], pa.float32()), ["missing_field"]),
        (pa.array([Decimal("12.50"), Decimal("0.00")], pa.decimal128(10, 2)), ["12.50", "0.00"]),
        (pa.array([Decimal("1200")], pa.decimal128(10, 0)), ["1200"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([DAY]), ["2024-01-31"]),
        (pa.array([TIME], pa.timestamp("us")), ["2024-01-31T09:05:00"]),
        (pa.array([TIME], pa.timestamp("ns")), ["2024-01-31T09:05:00"]),
        (pa.array([TIME.replace(tzinfo=UTC)], pa.timestamp("ms", "UTC")), ["2024-01-31T09:05:00+00:00"]),
        (pa.array([datetime.time(9, 5)]), ["09:05:00"]),
        (pa.array([b"yes", "ü".encode(), b"\xff"]), ["yes", "ü", "not_utf8"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (
            pa.array([{"score": 12.1, "day": DAY, "price": Decimal("3.10")}], NESTED),
            ['{"score": 12.1, "day": "2024-01-31", "price": 3.10}'],
        ),
        (pa.array([[12.1, None], []], pa.list_(pa.float32())), ["[12.1, null]", "[]"]),
        (pa.array([[12.1, 0.5]], pa.list_(pa.float32(), 2)), ["[12.1, 0.5]"]),
        (pa.array([[[12.1]]], pa.large_list(pa.list_(pa.float32()))), ["[[12.1]]"]),
        (pa.array([[1.0, float("nan")]]), ["missing_field"]),
        (pa.array([[b"ab", "ü".encode()]]), ['["ab", "ü"]']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_typed_column_is_trained_as_a_person_reads_it(write, column, expected):
    assert answers(write(column)) == expected


def test_numbers_of_json_keep_their_digits(tmp_path):
    written = ["7", "7.0", "12.50", "1e5", "1E-7", "123456789012345678901234567890", "0.1000000000000000000001"]
    rows = "\n".join(f'{{"prompt": "p", "reasoning": "r", "answer": {number}}}' for number in written)
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "rows.json").write_text(f"[{','.join(rows.splitlines())}]")
    assert answers(tmp_path / "rows.jsonl") == answers(tmp_path / "rows.json") == written


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("NaN", "missing_field"),
        ("[1, NaN]", "missing_field"),
        ("Infinity", "not_finite"),
        ("-Infinity", "not_finite"),
        ('"NaN"', "NaN"),
        ("true", "true"),
        ('{"a": 12.50, "b": ["ü\\n", null, false]}', '{"a": 12.50, "b": ["ü\\n", null, false]}'),
        ("[" * 600 + "]" * 600, "too_deep"),
    ],
)
def test_a_json_value_is_written_as_it_stands_or_refused(tmp_path, value, expected):
    (tmp_path / "rows.jsonl").write_text(f'{{"prompt": "p", "reasoning": "r", "answer": {value}}}\n')
    assert answers(tmp_path / "rows.jsonl") == [expected]


def test_a_value_that_nobody_reads_refuses_no_row(tmp_path):
    row = '{"prompt": "p", "reasoning": "r", "answer": "a", "score": NaN}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    assert answers(tmp_path / "rows.jsonl") == ["a"]


@pytest.mark.parametrize("required", [True, False])
def test_nan_is_refused_where_a_segment_may_be_absent_too(tmp_path, required):
    contract = ResponseContract(segments=(Segment(name="answer", key=True, required=required),))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "answer": NaN}\n')
    source = SourceConfig(adapter="records", path=str(tmp_path / "rows.jsonl"))
    (shard,) = find_shards(source, 9)
    (refusal,) = read_examples(source, contract, shard)
    assert (refusal.reason, "field 'answer' is NaN" in refusal.detail) == ("missing_field", True)


def test_texts_of_a_folder_of_json_stay_texts(tmp_path):
    """A loader that infers types makes timestamps of them."""
    rows = [{"prompt": f"q{i}", "reasoning": "r", "answer": a} for i, a in enumerate(("2024-01-31T00:00:00Z", "12:30"))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (tmp_path, tmp_path / "a.jsonl", tmp_path / "*.jsonl"):
        assert answers(path) == ["2024-01-31T00:00:00Z", "12:30"]


def test_prompts_of_bytes_are_their_text(tmp_path):
    rows = pa.table({"prompt": [b"2+2"], "reasoning": [b"count"], "answer": [b"4"]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    source = SourceConfig(adapter="records", path=str(tmp_path / "rows.parquet"))
    (shard,) = find_shards(source, 9)
    (example,) = read_examples(source, ResponseContract(), shard)
    assert (example.prompt, example.values) == ("2+2", {"reasoning": "count", "answer": "4"})


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
@pytest.mark.parametrize("nested", [False, True])
def test_two_columns_of_one_name_are_refused(tmp_path, name, nested):
    columns = pa.table([pa.array(["a"])] * 3, names=["prompt", "answer", "answer"])
    if nested:
        columns = pa.table({"row": pa.StructArray.from_arrays([pa.array(["a"])] * 2, names=["answer", "answer"])})
    if name.endswith("parquet"):
        pq.write_table(columns, tmp_path / name)
    else:
        with pa.ipc.new_stream(tmp_path / name, columns.schema) as stream:
            stream.write_table(columns)
    with pytest.raises(DataError, match=rf"{name}: .*'?answer"):
        find_shards(SourceConfig(adapter="records", path=str(tmp_path / name)), 9)


def test_a_type_without_a_text_is_named():
    assert text_of(uuid.UUID(int=1)) == "00000000-0000-0000-0000-000000000001"
    with pytest.raises(NoTextError, match="is of type object, which has no text"):
        text_of(object())


def test_rows_of_every_shard_are_converted(tmp_path):
    """Control: a batch that is cut in the middle is converted too."""
    numbers = pa.array([i + 0.1 for i in range(9)], pa.float32())
    pq.write_table(table(numbers), tmp_path / "rows.parquet", row_group_size=4)
    source = SourceConfig(adapter="records", path=str(tmp_path / "rows.parquet"))
    rows = [row for shard in find_shards(source, 2) for _, row in read_shard(source, shard)]
    assert [text_of(row["answer"]) for row in rows] == [f"{i}.1" for i in range(9)]
