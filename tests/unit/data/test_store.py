import multiprocessing

import numpy as np
import pytest

from sftkey_dist.config.schema import DataConfig, PromptConfig, SourceConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.example import Example
from sftkey_dist.data.prepare import SourceData, prepare_store
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.errors import DataError


@pytest.fixture
def data(tmp_path):
    train, test = (SourceConfig(adapter="decision_memos", split=split, limit=1) for split in ("train", "test"))
    return DataConfig(train=train, test=test, store_dir=tmp_path / "store", max_length_tokens=512)


@pytest.fixture
def prepare(data, contract, tokenizer):
    def make(memos, **changes):
        arguments = {"form": Form.TAGGED, "contract": contract, "prompt": PromptConfig(), "data": data} | changes
        return prepare_store(SourceData("train", tuple(memos), ()), tokenizer=tokenizer, **arguments)

    return make


def test_store_gives_back_what_was_encoded_with_counts(prepare, memos, tokenizer, contract):
    store = EncodedStore(prepare(memos).path)
    assert len(store) == len(memos)
    for index, memo in enumerate(memos):
        ids, segments = store.example(index)
        answer = contract.segment_names.index("answer")
        assert tokenizer.decode(ids[segments == answer].tolist()) == memo.values["answer"]
        assert store.segment_counts[index].tolist() == np.bincount(segments, minlength=8).tolist()
    assert store.example_ids([3]) == [memos[3].id]


def test_same_inputs_reuse_the_store_and_any_change_makes_another(prepare, memos, data):
    first = prepare(memos)
    stamp = (first.path / "manifest.json").stat().st_mtime_ns
    again = prepare(memos)
    assert again == first
    assert (first.path / "manifest.json").stat().st_mtime_ns == stamp
    others = [
        prepare(memos[1:]),
        prepare(memos, form=Form.UNTAGGED),
        prepare(memos, prompt=PromptConfig(template="plain")),
        prepare(memos, data=data.model_copy(update={"max_length_tokens": 511})),
    ]
    assert len({first.path, *(other.path for other in others)}) == 5


def test_too_long_examples_are_dropped_and_counted_never_cut(prepare, memos, data):
    long = Example("file:7", "p", {"reasoning": "word " * 600, "answer": "yes"})
    first, second = (prepare([*memos, long]) for _ in range(2))
    for prepared in (first, second):
        (dropped,) = prepared.report.dropped
        assert (dropped.reason, dropped.count) == ("too_long", 1)
        assert "file:7" in dropped.examples[0]
        assert prepared.report.kept == len(memos)
        assert prepared.report.rows == len(memos) + 1


def test_a_failed_preparation_leaves_nothing_behind(prepare, memos, data):
    bad = Example("file:9", "p", {"reasoning": "r", "answer": " "})
    with pytest.raises(DataError, match="file:9: empty_answer"):
        prepare([*memos, bad])
    assert not list(data.store_dir.glob("*")) if data.store_dir.exists() else True


def test_all_too_long_is_an_error_that_names_the_key(prepare, memos, data):
    with pytest.raises(DataError, match=r"data\.max_length_tokens=8"):
        prepare(memos, data=data.model_copy(update={"max_length_tokens": 8}))


def test_several_processes_may_prepare_at_once(prepare, memos, data):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=prepare, args=(memos,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (folder,) = [path for path in data.store_dir.iterdir() if not path.name.startswith(".")]
    assert len(EncodedStore(folder)) == len(memos)
    assert len(list(data.store_dir.iterdir())) == 1


def test_report_describes_lengths_and_the_share_of_key_tokens(prepare, memos):
    report = prepare(memos).report
    store_counts = EncodedStore(prepare(memos).path).segment_counts
    by_name = {length.segment: length for length in report.lengths}
    assert by_name["answer"].mean == pytest.approx(store_counts[:, 6].mean())
    assert by_name["all"].quantiles["p100"] == store_counts.sum(axis=1).max()
    response = store_counts[:, 1:].sum()
    assert report.key_share_of_response == pytest.approx(store_counts[:, 6].sum() / response)
