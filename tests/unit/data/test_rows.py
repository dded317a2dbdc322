"""Raw rows: every format gives the same rows however it is cut into shards, and damage is named with its place."""

import csv
import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.data.adapters.columns import RowError, text
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.rows.shards import content_digest, find_shards, read_shard
from sftkey_dist.errors import DataError

ROWS = [{"prompt": f"frage {i} ü🙂", "reasoning": f'line one\nline "two", {i}', "answer": str(i)} for i in range(23)]


def source(path, **keys):
    return SourceConfig(adapter="records", path=str(path), **keys)


def write(path, rows=ROWS):
    if ".jsonl" in path.name.lower():
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif ".json" in path.name:
        text = json.dumps(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
        return
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return
    path.write_bytes(COMPRESS.get(path.suffix.lower(), bytes)(text.encode()))


def zstandard(data: bytes) -> bytes:
    """Two frames, as from files that were put behind each other."""
    frames = pa.BufferOutputStream()
    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
        frames.write(pa.compress(part, codec="zstd", asbytes=True))
    return frames.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".zst": zstandard}


def read(config, shard_rows):
    return [item for shard in find_shards(config, shard_rows) for item in read_shard(config, shard)]


NAMES = ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz", "rows.csv", "rows.parquet"]
NAMES += ["rows.jsonl.zst", "rows.json.zst"]


@pytest.mark.parametrize("shard_rows", [1, 4, 7, 100])
@pytest.mark.parametrize("name", [*NAMES, "ROWS.JSONL.ZST", "ROWS.JSONL.GZ"])
def test_every_format_gives_every_row_once_in_order_however_it_is_cut(tmp_path, name, shard_rows):
    write(tmp_path / name)
    config = source(tmp_path / name)
    items = read(config, shard_rows)
    assert [row for _, row in items] == ROWS
    assert len({place for place, _ in items}) == len(ROWS)
    assert [place for place, _ in items] == [place for place, _ in read(config, 1000)]
    assert all(shard.num_rows <= shard_rows for shard in find_shards(config, shard_rows))


def test_a_separator_that_no_header_shows_is_asked_for(tmp_path):
    (tmp_path / "rows.csv").write_text("a|b\n1|2\n")
    ((_, row),) = read(source(tmp_path / "rows.csv"), 100)
    with pytest.raises(RowError, match=r"the header 'a\|b' is one column; put a line sep=\| before it"):
        text(row, "b")
    (tmp_path / "rows.csv").write_text("sep=|\na|b\n1|2\n")
    assert [row for _, row in read(source(tmp_path / "rows.csv"), 100)] == [{"a": "1", "b": "2"}]


def test_a_file_that_changed_is_read_again(tmp_path):
    write(tmp_path / "rows.json")
    assert len(read(source(tmp_path / "rows.json"), 100)) == len(ROWS)
    write(tmp_path / "rows.json", ROWS[:3])
    assert [row for _, row in read(source(tmp_path / "rows.json"), 100)] == ROWS[:3]


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_takes_the_first_rows(tmp_path, name):
    write(tmp_path / name)
    assert [row for _, row in read(source(tmp_path / name, limit=9), 4)] == ROWS[:9]


def test_places_are_line_numbers_even_where_records_span_lines_or_lines_are_blank(tmp_path):
    write(tmp_path / "rows.csv")
    assert [place for place, _ in read(source(tmp_path / "rows.csv"), 2)][:3] == [
        f"{tmp_path}/rows.csv:{line}" for line in (2, 4, 6)
    ]
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n  \n{"a": 2}\n')
    assert [place for place, _ in read(source(tmp_path / "rows.jsonl"), 1)] == [
        f"{tmp_path}/rows.jsonl:{line}" for line in (1, 4)
    ]


def test_a_pattern_and_a_folder_read_their_files_in_order(tmp_path):
    for part in range(3):
        write(tmp_path / f"part-{part}.jsonl", ROWS[part * 5 : part * 5 + 5])
    assert [row for _, row in read(source(tmp_path / "part-*.jsonl"), 3)] == ROWS[:15]
    assert read(source(tmp_path), 4) == read(source(tmp_path / "part-*.jsonl"), 3)
    with pytest.raises(DataError, match=r"none-\*\.jsonl: no file matches"):
        read(source(tmp_path / "none-*.jsonl"), 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_exactly_like_its_files(tmp_path, name):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / name)
    assert read(source(tmp_path / "set"), 4) == read(source(tmp_path / "set" / name), 7)
    assert content_digest(source(tmp_path / "set")) == content_digest(source(tmp_path / "set" / name))


def test_a_split_of_a_folder_is_the_files_that_are_named_by_it(tmp_path):
    for place in ("train-1.jsonl", "test.jsonl", "more/train.jsonl"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write(tmp_path / place, [{"prompt": place}])
    for split, places in {"train": ["more/train.jsonl", "train-1.jsonl"], "test": ["test.jsonl"]}.items():
        assert [row["prompt"] for _, row in read(source(tmp_path, split=split), 4)] == places
    with pytest.raises(DataError, match=r"no files of split 'validation'; there are train, test"):
        read(source(tmp_path, split="validation"), 4)


@pytest.mark.parametrize("stray", ["rows.csv", "more.jsonl"])
def test_a_file_of_a_folder_that_no_split_has_is_named_not_dropped(tmp_path, stray):
    write(tmp_path / "train.jsonl")
    (tmp_path / "notes.json").write_text("{}")
    assert len(read(source(tmp_path), 9)) == len(ROWS)
    write(tmp_path / stray)
    with pytest.raises(DataError, match=rf"{stray} is of another format .*, or its name has no split; move it"):
        read(source(tmp_path), 4)


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_a_folder_may_be_reached_through_links_and_hold_hidden_files(tmp_path, linked):
    """The hub's cache holds links to files without an ending."""
    real = tmp_path / "real"
    (real / ".cache").mkdir(parents=True)
    write(real / ".cache" / "old.jsonl")
    write(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").rename(tmp_path / "blob")
    (real / "rows.jsonl").symlink_to(tmp_path / "blob")
    folder = real
    if linked == "folder":
        folder = tmp_path / "link"
        folder.symlink_to(real)
    items = read(source(folder), 4)
    assert [row for _, row in items] == ROWS
    assert items[0][0] == f"{folder}/rows.jsonl:1"


def test_a_folder_without_data_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot find data files in this folder"):
        read(source(tmp_path), 4)


def test_a_saved_data_set_is_read_like_any_folder(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for shard_rows in (5, 100):
        assert [row for _, row in read(source(tmp_path / "saved"), shard_rows)] == ROWS


def test_a_byte_order_mark_belongs_to_no_row(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\n")
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfprompt,answer\r\na,b\r\nc,d\r\n")
    assert read(source(tmp_path / "rows.jsonl"), 5)[0][1] == ROWS[0]
    assert [row for _, row in read(source(tmp_path / "rows.csv"), 1)] == [
        {"prompt": "a", "answer": "b"},
        {"prompt": "c", "answer": "d"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl.gz", b"garbage, no gzip", r"rows\.jsonl\.gz: damaged gzip data .*compress it again"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9999, mtime=0)[:-30], r"rows\.jsonl\.gz: damaged gzip data"),
        ("rows.jsonl", gzip.compress(b'{"a": 1}\n', mtime=0), r"rows\.jsonl: contains gzip data; .*\.gz"),
        ("rows.jsonl.zst", b"garbage, not compressed", r"rows\.jsonl\.zst: damaged Zstandard data .*compress it again"),
        ("rows.jsonl.zst", zstandard(b'{"a": 1}\n' * 9999)[:-9], r"rows\.jsonl\.zst: damaged Zstandard data \(Trunc"),
        ("rows.jsonl", zstandard(b'{"a": 1}\n'), r"rows\.jsonl: contains Zstandard data; .*\.zst"),
        ("rows.parquet", b"PAR1 no", r"rows\.parquet: not a Parquet file"),
        ("rows.arrow", b"ARROW no", r"rows\.arrow: not an Arrow file"),
        ("rows.json", b'[{"a": 1, "b": 2, "a": 3}]', r"rows\.json: not JSON: key 'a' appears twice in one object"),
        ("rows.json", b'[{"a": 1},\n {"a": ]', r"rows\.json:2: not JSON"),
        ("rows.json", b'{"a": 1}\n{"a": 2}', r"rows\.json:2: not JSON: Extra data; .*\.jsonl"),
        ("rows.json", b'{"a": 1}', r"rows\.json: a \.json file must contain a list"),
        ("rows.json", b'["\xff"]', r"rows\.json: not UTF-8 text \(byte 2\)"),
        ("rows.csv", b"a,a\n1,2\n", r"rows\.csv:1: the first line must name each column once"),
        ("rows.csv", b'a,b\n1,2\n3,"open\n', r"rows\.csv:3: not a CSV record"),
        ("rows.csv", b"sep=;\na;a\n1;2\n", r"rows\.csv:2: the first line must name each column once"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16"), r"rows\.csv: text in UTF-16 or UTF-32, not in UTF-8; convert the"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16-le"), r"rows\.csv: text in UTF-16 or UTF-32"),
        ("rows.jsonl", '{"a": 1}\n'.encode("utf-16-be"), r"rows\.jsonl: text in UTF-16 or UTF-32"),
        (
            "rows.json.gz",
            gzip.compress('[{"a": 1}]'.encode("utf-32"), mtime=0),
            r"rows\.json\.gz: text in UTF-16 or UTF-32",
        ),
        ("rows.txt", b"text", r"rows\.txt: unknown file format; convert it"),
        ("missing.jsonl", None, r"missing\.jsonl: no such data file"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_a_remedy(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(source(tmp_path / name), 100)


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("rows.jsonl", b'{"a": 1}\n' * 16 + b'{"a": \n', ":17", "invalid_json"),
        ("rows.jsonl", b'{"a": 1}\n' * 16 + b"[1]\n", ":17", "invalid_json"),
        ("rows.jsonl", b'{"a": 1}\n' * 16 + b'{"a": 1, "a": 2}\n', ":17", "invalid_json"),
        ("rows.jsonl", b'{"a": 1}\n' * 16 + b'{"a": [{"b": 1, "b": 1}]}\n', ":17", "invalid_json"),
        ("rows.jsonl", b'{"a": 1}\n' * 16 + b"[" * 100_000 + b"\n", ":17", "invalid_json"),
        ("rows.jsonl", b'{"a": 1}\n' * 16 + b'{"a": "\xff"}\n', ":17", "not_utf8"),
        ("rows.csv", b"a,b\n" + b"1,2\n" * 15 + b"1,2,3\n", ":17", "wrong_columns"),
        ("rows.csv", b"a,b\n" + b"1,2\n" * 15 + b"1,\xff\n", ":17", "not_utf8"),
        ("rows.json", b"[" + b'{"a": 1},' * 16 + b"3]", "#17", "invalid_json"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_place(tmp_path, name, content, place, reason):
    (tmp_path / name).write_bytes(content)
    for shard_rows in (1, 1000):
        *good, (bad_place, bad) = read(source(tmp_path / name), shard_rows)
        assert bad_place == f"{tmp_path / name}{place}"
        assert isinstance(bad, Refusal)
        assert (bad.id, bad.reason) == (bad_place, reason)
        assert len(good) == 16 - (name == "rows.csv")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_row_of_many_megabytes_is_refused_with_its_place_and_the_others_are_read(tmp_path, name):
    """As JSON, and as what a few kilobytes of gzip data hold."""
    lines = [b'{"a": 1}\n', b'{"a": "' + b"x" * 2**25 + b'"}\n', b'{"a": 2}\n', b" " * 2**25]
    with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wb") as file:
        file.writelines(lines)
    for shard_rows in (1, 100):
        found = [row for _, row in read(source(tmp_path / name), shard_rows)]
        assert [found[0], found[2]] == [{"a": 1}, {"a": 2}]
        assert [(row.id, row.reason) for row in found[1::2]] == [
            (f"{tmp_path / name}:{line}", "row_too_large") for line in (2, 4)
        ]
        assert "33,554,442 bytes, a row has at most 16 MiB; shorten it or leave it out" in found[1].detail


def test_a_gzip_bomb_ends_with_its_place_and_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("sftkey_dist.data.rows.json_files._MAX_LINE_BYTES", 2**26)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        file.write(b'{"a": 1}\n')
        for _ in range(10):
            file.write(b"x" * 2**23)
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz:2: a line of more than 64 MiB; put each object on a line"):
        read(source(tmp_path / "rows.jsonl.gz"), 100)


@pytest.mark.parametrize("cell", [b"x" * 2**25, b'"' + b"x\n" * (2**23 + 1)])
def test_a_csv_record_of_many_megabytes_is_named(tmp_path, cell):
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,2\n3," + cell)
    with pytest.raises(DataError, match=r"rows\.csv:3: not a CSV record: .*(16 MiB|field limit).*quotation mark"):
        read(source(tmp_path / "rows.csv"), 100)


def test_a_json_file_that_unpacks_to_more_than_it_may_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sftkey_dist.data.rows.json_files._MAX_FILE_BYTES", 2**20)
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(b"[" + b" " * 2**21 + b"]"))
    with pytest.raises(DataError, match=r"rows\.json\.gz: contains more than 1 MiB; convert it to \.jsonl"):
        read(source(tmp_path / "rows.json.gz"), 100)


def test_a_parquet_column_of_text_that_is_not_utf8_is_named(tmp_path):
    column = pa.array([b"ok", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": column}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: a column of text is not UTF-8"):
        read(source(tmp_path / "rows.parquet"), 100)


def test_a_date_that_python_cannot_hold_is_named(tmp_path):
    column = pa.array([0, 10**15], pa.timestamp("ms"))
    pq.write_table(pa.table({"when": column}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: a date or time is out of range.*write its column as text"):
        read(source(tmp_path / "rows.parquet"), 100)


def test_two_asterisks_stand_for_folders_at_any_depth(tmp_path):
    for place in ("a.jsonl", "x/b.jsonl", "x/y/c.jsonl"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write(tmp_path / place, [{"prompt": place}])
    found = [row["prompt"] for _, row in read(source(tmp_path / "**/*.jsonl"), 4)]
    assert found == ["a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]


def test_a_hub_id_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot load data set 'nobody/nothing' \(split 'train'\) from the hub"):
        read(source("nobody/nothing"), 10)


@pytest.mark.parametrize("name", ["rows.csv", "ROWS.CSV", "rows.tsv", "rows.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_header_shows_what_separates_cells(tmp_path, name, separator):
    lines = [["Ticket No", "Reply"], ["1", "12,50 EUR; fine"], ["2", 'a "quoted"\nline']]
    text = "\n".join(separator.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in line) for line in lines)
    content = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for rows_at_a_time in (1, 10):
        rows = [row for _, row in read(source(tmp_path / name), rows_at_a_time)]
        assert rows == [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.mark.parametrize("begin", ["sep={}\r\n", "\ufeffsep={}\n", '"sep={}"\n'])
@pytest.mark.parametrize("separator", [";", ",", "|"])
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_line_that_names_the_separator_is_no_row(tmp_path, begin, separator, ending):
    lines = [["note", "a;b,c|d"], ["1", "2"], ["3", "4"]]
    text = begin.format(separator) + "".join(f'"{one}"{separator}"{two}"\n' for one, two in lines)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard}[ending]
    file = tmp_path / f"rows.csv{ending}"
    file.write_bytes(pack(text.encode()))
    for rows_at_a_time in (1, 10):
        rows = read(source(file), rows_at_a_time)
        expected = [(f"{file}:{number + 2}", dict(zip(lines[0], lines[number], strict=True))) for number in (1, 2)]
        assert rows == expected


def test_a_column_may_be_called_like_the_line_that_names_the_separator(tmp_path):
    (tmp_path / "rows.csv").write_text("sep=;,b\n1,2\n")
    assert [row for _, row in read(source(tmp_path / "rows.csv"), 10)] == [{"sep=;": "1", "b": "2"}]


def test_a_file_of_one_column_is_one_whatever_its_cells_contain(tmp_path):
    (tmp_path / "rows.csv").write_text('text\n"a;b, c"\n')
    assert [row for _, row in read(source(tmp_path / "rows.csv"), 10)] == [{"text": "a;b, c"}]
