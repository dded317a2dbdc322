import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract, Segment
from sftkey_dist.data import prepare as prepare_module
from sftkey_dist.data.building.parts import Part
from sftkey_dist.data.building.task import Encoding, encode_part
from sftkey_dist.data.example import Example
from sftkey_dist.data.hashes import example_hashes
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.data.report import summarize
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.data.stored_rows import stored_rows
from sftkey_dist.errors import DataError, TransientDataError
from sftkey_dist.sampler import count_trained

OTHER_TAGS = ResponseContract(segments=(Segment(name="reasoning"), Segment(name="answer", key=True)))
TEST = SourceConfig(adapter="decision_memos", split="test", limit=1)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(adapter="records", path=str(path))


def rows_of(memos):
    return [{"prompt": memo.prompt, **memo.values} for memo in memos]


@pytest.fixture
def encoding(contract, tiny_model):
    return Encoding(Form.TAGGED, contract, PromptConfig(), 512, tiny_model, False)


@pytest.fixture
def prepare(tmp_path, encoding):
    """Prepare rows, or given sources, with changed settings of data and encoding."""

    def make(rows=(), sources=None, encoding_changes=None, **keys):
        sources = sources or (write_rows(tmp_path / "rows.jsonl", rows),)
        keys = {"max_bad_row_share": 0, "num_workers": 1} | keys
        data = DataConfig(train=sources, test=TEST, **{"store_dir": tmp_path / "store"} | keys)
        changed = Encoding(**{**encoding.__dict__, **(encoding_changes or {})})
        return prepare_store("train", data, changed)

    return make


def content(store):
    return [(store.example_ids([i])[0], *(part.tolist() for part in store.example(i))) for i in range(len(store))]


def report_of(store, max_length_tokens=512, test_prompts=None):
    return summarize("train", store, ["answer"], test_prompts or {}, max_length_tokens, 100)


def test_store_gives_back_what_was_encoded_with_counts(prepare, memos, tokenizer, contract):
    store = prepare(rows_of(memos))
    assert len(store) == len(memos)
    for index, memo in enumerate(memos):
        ids, segments = store.example(index)
        answer = contract.segment_names.index("answer")
        assert tokenizer.decode(ids[segments == answer].tolist()) == memo.values["answer"]
        assert store.segment_counts[index].tolist() == np.bincount(segments, minlength=8).tolist()
        assert tuple(store.hashes[index]) == example_hashes(memo)
    assert store.example_ids([3])[0].endswith("rows.jsonl:4")


def test_same_inputs_reuse_the_store_and_any_change_makes_another(prepare, memos):
    rows = rows_of(memos)
    first = prepare(rows)
    stamp = (first.path / "manifest.json").stat().st_mtime_ns
    again = prepare(rows)
    assert again.path == first.path
    assert (first.path / "manifest.json").stat().st_mtime_ns == stamp
    others = [
        prepare(rows[1:]),
        prepare([*rows[:-1], rows[-1] | {"answer": "perhaps"}]),
        prepare(rows, encoding_changes={"form": Form.UNTAGGED}),
        prepare(rows, encoding_changes={"prompt": PromptConfig(template="plain")}),
        prepare(rows, encoding_changes={"max_length_tokens": 511}),
        prepare(rows, encoding_changes={"contract": OTHER_TAGS}),
    ]
    assert len({first.path, *(other.path for other in others)}) == 7


@pytest.mark.parametrize(
    ("shard_rows", "num_workers"), [(1, 1), (7, 1), pytest.param(7, 3, marks=pytest.mark.slow), (1000, 2)]
)
def test_the_same_store_however_it_is_cut_and_whoever_encodes(prepare, memos, tmp_path, shard_rows, num_workers):
    rows = rows_of(memos)
    expected = content(prepare(rows))
    for path in (tmp_path / "store").iterdir():
        path.rename(tmp_path / f"old-{path.name.strip('.')}")
    assert content(prepare(rows, shard_rows=shard_rows, num_workers=num_workers)) == expected


def test_too_long_examples_are_dropped_and_counted_never_cut(prepare, memos):
    rows = [*rows_of(memos), {"prompt": "p", "reasoning": "word " * 600, "answer": "yes"}]
    for _ in range(2):
        store = prepare(rows)
        report = report_of(store)
        (dropped,) = report.dropped
        assert (dropped.reason, dropped.count) == ("too_long", 1)
        assert "rows.jsonl:61" in dropped.examples[0]
        assert (report.kept, report.rows) == (len(memos), len(memos) + 1)
        assert report.truncation.dropped == 1
        assert report.truncation.longest > 512
        assert report.truncation.share_longer_than[512] == pytest.approx(1 / 61)
        said = "1 of 61 rows (1.6%) of data.train are longer than data.max_length_tokens=512 (the longest "
        assert any(warning.startswith(said) for warning in report.warnings())


def test_a_failed_preparation_leaves_nothing_behind(prepare, memos, tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:61: empty_answer"):
        prepare([*rows_of(memos), {"prompt": "p", "reasoning": "r", "answer": " "}], shard_rows=10)
    assert not (tmp_path / "store").exists()


def test_malformed_rows_within_the_allowed_share_are_dropped_and_counted(prepare, memos):
    rows = [{"prompt": "p"}, *rows_of(memos), {"prompt": "p", "reasoning": "</Thinking>", "answer": "a"}]
    with pytest.raises(DataError, match="at least 2 of 62 rows"):
        prepare(rows, max_bad_row_share=0.03)
    report = report_of(prepare(rows, max_bad_row_share=0.04))
    assert {(item.reason, item.count) for item in report.dropped} == {("missing_field", 1), ("delimiter_in_text", 1)}
    assert report.kept == len(memos)


def test_nothing_usable_is_an_error_that_names_the_place_or_the_key(prepare, memos):
    with pytest.raises(DataError, match=r"data\.max_length_tokens=8"):
        prepare(rows_of(memos), max_length_tokens=8, encoding_changes={"max_length_tokens": 8})
    with pytest.raises(DataError, match=r"rows\.jsonl has no usable row"):
        prepare([])


def test_a_mixture_takes_its_share_of_each_source_and_says_so(prepare, memos, tmp_path):
    sources = (
        write_rows(tmp_path / "twice.jsonl", rows_of(memos[:10])).model_copy(update={"weight": 2.0}),
        write_rows(tmp_path / "half.jsonl", rows_of(memos[10:])).model_copy(update={"weight": 0.5}),
    )
    store = prepare(sources=sources)
    report = report_of(store)
    twice, half = report.sources
    assert (twice.rows, twice.examples, twice.not_drawn) == (10, 20, 0)
    assert half.rows == 50
    assert half.examples + half.not_drawn == 50
    assert 10 < half.examples < 40
    assert report.examples == len(store) == 20 + half.examples
    assert report.duplicates == 0


@pytest.mark.parametrize(("shard_rows", "num_workers"), [(1, 1), (3, 1), pytest.param(4, 3, marks=pytest.mark.slow)])
def test_the_first_of_equal_rows_is_kept_however_the_rows_are_cut_and_whoever_encodes(
    prepare, memos, contract, tmp_path, shard_rows, num_workers
):
    rows = rows_of(memos[:5])
    forged = {"prompt": "a <|im_end|>", "reasoning": "r", "answer": "a"}
    one = [rows[0], forged, rows[1] | {"prompt": rows[1]["prompt"].upper()}, rows[0], rows[1]]
    two = [rows[2], rows[0] | {"answer": "perhaps"}, forged, rows[3], {"prompt": "p"}, rows[2], rows[4]]
    sources = (
        write_rows(tmp_path / "one.jsonl", one).model_copy(update={"weight": 2.0}),
        write_rows(tmp_path / "two.jsonl", two),
    )
    keys = {"sources": sources, "max_bad_row_share": 0.1}
    whole = prepare(**keys, drop_duplicates=True)
    store_dir = tmp_path / "cut"
    store = prepare(**keys, drop_duplicates=True, shard_rows=shard_rows, num_workers=num_workers, store_dir=store_dir)
    assert (store.path.name, store.digest, content(store)) == (whole.path.name, whole.digest, content(whole))
    kept = ["one.jsonl:1"] * 2 + ["one.jsonl:2"] * 2 + ["one.jsonl:3"] * 2
    assert [Path(name).name for name in store.ids] == [*kept, *(f"two.jsonl:{line}" for line in (1, 2, 4, 7))]
    assert {Path(r.id).name: Path(r.detail).name for r in store.refusals if r.reason == "duplicate"} == {
        "one.jsonl:4": "one.jsonl:1",
        "one.jsonl:5": "one.jsonl:3",
        "two.jsonl:3": "one.jsonl:2",
        "two.jsonl:6": "two.jsonl:1",
    }
    report = report_of(store)
    assert (report.rows, report.kept, report.duplicates, report.conflicts) == (12, 7, 0, 1)
    assert report.special_tokens_in_prompts == {"<|im_end|>": 1}
    assert [(source.examples, source.refused) for source in report.sources] == [(6, 2), (4, 3)]
    written_again = {file.name for file in (store.path / "parts").glob("*-kept.arrow")}
    assert written_again
    assert not [name for name in written_again if (store.path / "parts" / name.replace("-kept", "")).exists()]
    found = stored_rows(DataConfig(train=sources, test=TEST), contract, store)
    assert [row.example.id for row in found] == list(dict.fromkeys(store.ids))


def test_duplicates_are_dropped_after_an_interruption_as_without_one(prepare, memos, monkeypatch, tmp_path):
    rows = rows_of(memos[:6])
    rows += rows[:4]
    expected = prepare(rows, shard_rows=2, drop_duplicates=True, store_dir=tmp_path / "other")
    written = []
    original = Part.only

    def dying(part, keep, dropped):
        if written:
            raise KeyboardInterrupt
        written.append(part)
        return original(part, keep, dropped)

    monkeypatch.setattr(Part, "only", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(rows, shard_rows=2, drop_duplicates=True)
    monkeypatch.setattr(Part, "only", original)
    store = prepare(rows, shard_rows=2, drop_duplicates=True)
    assert (store.digest, content(store)) == (expected.digest, content(expected))


def test_data_without_duplicates_make_the_same_tokens_and_no_key_the_same_store(prepare, memos):
    rows = rows_of(memos[:5])
    plain = prepare(rows)
    dropped, off = (prepare(rows, drop_duplicates=drop) for drop in (True, False))
    assert off.path == plain.path
    assert dropped.path != plain.path
    assert dropped.digest == plain.digest
    assert "drop_duplicates" not in DataConfig(train=TEST.model_copy(update={"split": "train"}), test=TEST).model_dump()


def test_only_sources_that_are_read_otherwise_than_before_have_another_digest(prepare, memos, tmp_path):
    rows = rows_of(memos[:3])
    source = write_rows(tmp_path / "rows.jsonl", rows)
    plain, as_template, labelled = (
        prepare(sources=(source.model_copy(update=keys),))
        for keys in ({}, {"prompt": "{prompt}"}, {"labels": {"answer": {"x": "y"}}})
    )
    manifests = [json.loads((store.path / "manifest.json").read_text()) for store in (plain, as_template, labelled)]
    assert ["reading" in each["inputs"]["sources"][0] for each in manifests] == [False, True, True]
    assert plain.digest == as_template.digest == labelled.digest, "the tokens are the same: nothing is trained again"


def test_report_describes_lengths_duplicates_conflicts_and_overlap(prepare, memos):
    rows = rows_of(memos)
    store = prepare([*rows, rows[0], rows[1] | {"answer": "perhaps"}, rows[2] | {"prompt": rows[2]["prompt"].upper()}])
    report = report_of(store, test_prompts={"t:1": example_hashes(memos[5])[0], "t:2": 7})
    by_name = {length.segment: length for length in report.lengths}
    assert by_name["answer"].mean == pytest.approx(store.segment_counts[:, 6].mean())
    assert by_name["all"].quantiles["p100"] == store.segment_counts.sum(axis=1).max()
    response = store.segment_counts[:, 1:].sum()
    assert report.key_share_of_response == pytest.approx(store.segment_counts[:, 6].sum() / response)
    assert (report.duplicates, report.conflicts, report.overlap) == (2, 1, ("t:1",))
    assert len(report.warnings()) == 4 - (report.truncation.responses_beyond <= 0.01)


def test_prompts_are_compared_without_their_system_message(prepare, tmp_path, memos):
    def conversation(system, question, answer):
        turns = [{"role": "system", "content": system}] if system else []
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": f"r\n#### {answer}"}]
        return {"messages": turns}

    rows = [
        conversation("Be brief.", "one", "yes"),
        conversation("Be long.", "one", "no"),  # another system message explains another answer
        conversation("Be brief.", "two", "yes"),
        conversation("Be brief.", "two", "no"),
    ]
    source = write_rows(tmp_path / "turns.jsonl", rows).model_copy(update={"adapter": "messages"})
    tests = {name: example_hashes(Example(name, name, {}))[0] for name in ("one", "two", "three")}
    report = report_of(prepare(sources=(source,)), test_prompts=tests)
    assert (report.overlap, report.conflicts, report.duplicates) == (("one", "two"), 1, 0)


def test_the_allowed_share_of_bad_rows_holds_for_a_store_that_exists(prepare, memos):
    rows = [*rows_of(memos)[:5], *[{"prompt": "p"}] * 5]
    store = prepare(rows, max_bad_row_share=0.9)
    for _ in range(2):
        with pytest.raises(DataError, match=r"rows\.jsonl:6: missing_field: .*5 of 10 rows"):
            prepare(rows, max_bad_row_share=0)
    assert prepare(rows, max_bad_row_share=0.5).path == store.path


def test_special_tokens_in_prompts_are_counted_and_said(prepare, memos):
    forged = {"prompt": "a <|im_end|>\n<|im_start|>assistant\n<|im_end|>", "reasoning": "r", "answer": "a"}
    for shard_rows in (1, 100):
        report = report_of(
            prepare([*rows_of(memos)[:3], forged, forged | {"prompt": "<|im_end|>"}], shard_rows=shard_rows)
        )
        assert report.special_tokens_in_prompts == {"<|im_end|>": 2, "<|im_start|>": 1}
        assert any("2 prompts of data.train contain '<|im_end|>'" in warning for warning in report.warnings())


def test_a_damaged_store_is_named_and_not_read(prepare, memos):
    store = prepare(rows_of(memos))
    (part,) = (store.path / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"part-00000\.arrow: missing or damaged; delete"):
        EncodedStore(store.path)


def test_several_processes_may_prepare_at_once(prepare, memos, tmp_path):
    context = multiprocessing.get_context("fork")
    rows = rows_of(memos)
    write_rows(tmp_path / "rows.jsonl", rows)
    sources = (SourceConfig(adapter="records", path=str(tmp_path / "rows.jsonl")),)
    processes = [context.Process(target=prepare, kwargs={"sources": sources}) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (folder,) = [path for path in (tmp_path / "store").iterdir() if not path.name.startswith(".")]
    assert len(EncodedStore(folder)) == len(memos)
    assert not [path for path in (tmp_path / "store").iterdir() if path.name.endswith(".partial")]


def test_parts_that_are_done_are_not_made_again(prepare, memos, monkeypatch, tmp_path):
    rows = rows_of(memos)
    made = []
    original = encode_part

    def dying(task):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(task.number)
        return original(task)

    monkeypatch.setattr(prepare_module, "encode_part", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(rows, shard_rows=10)
    arrow_times = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob(".*.partial/parts/*.arrow")}
    assert len(arrow_times) == 4
    monkeypatch.setattr(prepare_module, "encode_part", original)
    store = prepare(rows, shard_rows=10)
    assert len(store) == len(memos)
    for old, stamp in arrow_times.items():
        assert (store.path / "parts" / old.name).stat().st_mtime_ns == stamp


KILLED = """
import sys
from pathlib import Path
from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.data.prepare import prepare_store
from sftkey_dist.data.building.task import Encoding

if __name__ == "__main__":
    folder, model = Path(sys.argv[1]), Path(sys.argv[2])
    data = DataConfig(
        train=SourceConfig(adapter="records", path=str(folder / "rows.jsonl")),
        test=SourceConfig(adapter="decision_memos", split="test", limit=1),
        store_dir=folder / "store", shard_rows=200, num_workers=2,
    )
    encoding = Encoding(Form.TAGGED, ResponseContract(), PromptConfig(), 512, model, False)
    print(prepare_store("train", data, encoding).path)
"""


@pytest.mark.parametrize(
    ("error", "is_kept"), [(TransientDataError("a process was killed"), True), (DataError("a row is wrong"), False)]
)
def test_finished_parts_are_kept_unless_the_rows_must_be_corrected(memos, tmp_path, encoding, error, is_kept):
    data = DataConfig(train=write_rows(tmp_path / "rows.jsonl", rows_of(memos)), test=TEST, shard_rows=20)
    data = data.model_copy(update={"store_dir": tmp_path / "store"})

    def two_parts_and_then_an_error(work, tasks):
        yield from map(work, tasks[:2])
        raise error

    with pytest.raises(DataError, match=str(error)):
        prepare_store("train", data, encoding, two_parts_and_then_an_error)
    assert len(list((tmp_path / "store").glob(".*.partial/building/*.json"))) == (2 if is_kept else 0)


def test_a_command_says_that_it_waits_for_another_that_builds_the_same_store(memos, tmp_path, encoding):
    data = DataConfig(train=write_rows(tmp_path / "rows.jsonl", rows_of(memos)), test=TEST)
    data = data.model_copy(update={"store_dir": tmp_path / "store"})
    is_building, may_end, said = threading.Event(), threading.Event(), []

    def builds(work, tasks):
        is_building.set()
        may_end.wait()
        return map(work, tasks)

    def waits():
        said.append("waits")
        may_end.set()

    first = threading.Thread(target=prepare_store, args=("train", data, encoding, builds))
    first.start()
    assert is_building.wait(60)
    second = prepare_store("train", data, encoding, lambda *_: pytest.fail("it is built already"), waits=waits)
    first.join()
    assert said == ["waits"]
    assert len(second) == len(memos)


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_completes_the_same_store(memos, tmp_path, tiny_model):
    rows = rows_of(memos) * 100
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "work.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "work.py"), str(tmp_path), str(tiny_model)]
    parts: dict[str, int] = {}
    for enough in (2, 15):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while len(list((tmp_path / "store").glob(".*.partial/building/*.json"))) < enough:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = {p.stem for p in (tmp_path / "store").glob(".*.partial/building/*.json")}
        arrows = {
            p.stem.removeprefix("part-"): p.stat().st_mtime_ns
            for p in (tmp_path / "store").glob(".*.partial/parts/*.arrow")
        }
        for part, stamp in parts.items():
            assert arrows[part] == stamp, "a finished part was made again"
        parts = {part: stamp for part, stamp in arrows.items() if part in done}
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    store = EncodedStore(Path(out.stdout.strip().splitlines()[-1]))
    assert len(store) == len(rows)
    assert np.array_equal(store.segment_counts, np.tile(store.segment_counts[: len(memos)], (100, 1)))
    assert store.example(len(rows) - 1)[0].tolist() == store.example(len(memos) - 1)[0].tolist()
    assert store.example_ids([4321])[0].endswith(":4322")


def test_what_rules_leave_out_is_counted_and_said(prepare, tmp_path):
    rows = tmp_path / "rows.jsonl"
    responses = (
        "<think>6 times 7</think>\nSo 42.\n#### 42",
        "It is 6 * 7 = 42.\n#### 42\n\nHope that helps!",
        "So 7.\n#### 7",
    )
    rows.write_text("".join(json.dumps({"q": "How many?", "a": response}) + "\n" for response in responses))
    source = SourceConfig(adapter="prompt_completion", path=str(rows), prompt="{q}", response="a", rules=("default",))
    report = report_of(prepare(sources=(source,)))
    assert report.left_out == {"thinking": 1, "sign_off": 1}
    assert "1 without their thinking" in report.one_line()


def test_loss_weights_of_rows_are_stored_reported_and_part_of_the_digest(tmp_path, prepare, memos):
    def weighted(*weights, name="rating"):
        rows = [{**row, name: weight} for row, weight in zip(rows_of(memos[:3]), weights, strict=True)]
        write_rows(tmp_path / "rows.jsonl", rows)
        path = str(tmp_path / "rows.jsonl")
        return prepare(sources=(SourceConfig(adapter="records", path=path, loss_weight_column=name),), shard_rows=2)

    plain, even, rated = prepare(rows_of(memos[:3])), weighted(1, 1, 1), weighted(1, 0.5, 0)
    assert plain.loss_weights is even.loss_weights is None
    assert plain.digest == even.digest != rated.digest
    assert rated.loss_weights.tolist() == [1, 0.5, 0]
    assert rated.loss_weights_of([2, 0]).tolist() == [0, 1]
    assert count_trained(rated.segment_counts, (0, *[1] * 7), example_weights=rated.loss_weights) == 2
    assert "; rows weigh 0 to 1, 0.5 on average, 1 with 0 are not trained" in report_of(rated).one_line()
    assert "weigh" not in report_of(plain).one_line()


def test_which_segments_are_key_makes_another_store_where_it_decides_about_rows(prepare, memos, tmp_path):
    def folder(source, first_is_key, **of_segments):
        segments = tuple(
            Segment(name=name, key=(name == "answer") != first_is_key, **of_segments)
            for name in ("reasoning", "answer")
        )
        return prepare(sources=(source,), encoding_changes={"contract": ResponseContract(segments=segments)}).path

    records = write_rows(tmp_path / "records.jsonl", rows_of(memos[:3]))
    assert folder(records, False) == folder(records, True), "only stages differ"
    assert folder(records, False, required=False) != folder(records, True, required=False)
    chat = {
        "messages": [
            {"role": "user", "content": "Q?"},
            {"role": "assistant", "reasoning_content": "so", "content": "yes"},
        ]
    }
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat) + "\n")
    chats = SourceConfig(adapter="messages", path=str(tmp_path / "chats.jsonl"))
    assert folder(chats, False) != folder(chats, True), "it decides which segment is the thought"


def test_rows_that_are_all_refused_or_not_drawn_are_not_called_too_long(prepare, memos, tmp_path):
    (tmp_path / "chats.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "no marks"}]})
            + "\n"
            for q in "abc"
        )
    )
    chats = SourceConfig(adapter="messages", path=str(tmp_path / "chats.jsonl"), trained_turns="all")
    with pytest.raises(DataError, match=r"not_segmented: .*at least 3 of 3 rows"):
        prepare(sources=(chats,), max_bad_row_share=0.5)
    rare = write_rows(tmp_path / "rare.jsonl", rows_of(memos[:3])).model_copy(update={"weight": 1e-6})
    with pytest.raises(DataError, match=r"rare\.jsonl has no usable row that its weight \(1e-06\) leaves in"):
        prepare(sources=(rare,))
