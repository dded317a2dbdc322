"""A test set that is held out from the training sources."""

import json
import re

import pytest

from sftkey_dist.config import load_config
from sftkey_dist.config.data import DataConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import Form
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.pipeline.evaluation_settings import settings_for_tests
from sftkey_dist.pipeline.prepare import prepare

ROWS = [{"prompt": f"q{i % 30}", "reasoning": f"r{i}", "answer": "a"} for i in range(40)]


@pytest.fixture
def split(run_config, tmp_path):
    """Prepare rows of one file of which a part is tested."""
    given = run_config.model_dump(mode="json")

    def make(rows, split, name="cases", **keys):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"train": {"adapter": "records", "path": str(file), "name": "mine"}, "split": split, "num_workers": 1}
        data = {key: value for key, value in given["data"].items() if key not in ("train", "test")} | data | keys
        config = RunConfig.model_validate(given | {"strategies": ["sft-tag"], "data": data})
        return config, prepare(config)

    return make


def prompts_of(done):
    return {example.prompt.casefold() for example in done.test}


def test_prompts_are_tested_or_trained_whatever_the_order_of_rows_and_the_shards(split, capsys):
    config, done = split(ROWS, {"test": 0.3})
    (store,), (report,) = done.stores.values(), done.reports
    prompts = prompts_of(done)
    assert 3 <= len(prompts) <= 15
    assert len(done.test) == sum(row["prompt"] in prompts for row in ROWS)
    assert (len(store), report.rows, report.overlap) == (40 - len(done.test), 40 - len(done.test), ())
    trained = [int(name.rpartition(":")[2]) - 1 for name in store.ids]
    assert [ROWS[line]["prompt"] for line in trained] == [row["prompt"] for row in ROWS if row["prompt"] not in prompts]
    said = capsys.readouterr().out
    assert f"data train (tagged): {len(store)} of {len(store)} rows kept" in said
    assert f"data test: {len(done.test)} of {len(done.test)} rows kept" in said
    written = json.loads(done.run.data_report.read_text())
    assert (written["sets"][0]["rows"], written["test"]["rows"]) == (len(store), len(done.test))
    assert {example.data_set for example in done.test} == {"test of mine"}
    assert set(settings_for_tests(config, done.strategies[0]).checks) == {"test of mine"}
    _, cut = split(ROWS, {"test": 0.3}, shard_rows=3)
    (same,) = cut.stores.values()
    assert (same.path, [e.id for e in cut.test]) == (store.path, [e.id for e in done.test])
    again = load_config([done.run.config])
    assert again.data.test_sources == config.data.test_sources
    other = [row | {"prompt": f"  {row['prompt'].upper()}"} for row in reversed(ROWS[:20])]
    _, fewer = split(other, {"test": 0.3}, "other")
    assert {prompt.strip() for prompt in prompts_of(fewer)} == prompts & {row["prompt"] for row in ROWS[:20]}
    _, reseeded = split(ROWS, {"test": 0.3, "seed": 1})
    assert prompts_of(reseeded) != prompts


def test_a_weight_of_the_mixture_leaves_no_tested_row_out(split):
    config, whole = split(ROWS, {"test": 0.3})
    source = {"adapter": "records", "path": config.data.train[0].path, "name": "mine", "weight": 0.1}
    _, weighted = split(ROWS, {"test": 0.3}, train=source)
    assert prompts_of(weighted) == prompts_of(whole)


def test_a_larger_share_adds_prompts_and_a_row_without_a_prompt_counts_once(split):
    rows = [*ROWS, {"reasoning": "r"}]
    _, few = split(rows, {"test": 0.2}, max_bad_row_share=0.5)
    _, many = split(rows, {"test": 0.5}, max_bad_row_share=0.5)
    assert prompts_of(few) < prompts_of(many)
    for done in (few, many):
        assert done.reports[0].rows + done.test_report.rows == len(rows)
        assert [(item.reason, item.count) for item in done.reports[0].dropped] == [("missing_field", 1)]
        assert done.test_report.dropped == ()


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({}, {"columns": {"reasoning": "reasonings"}}),
        ({}, {"prompt": "promt"}),
        ({}, {"loss_weight_column": "weight"}),
        ({"answer": ""}, {}),
        ({"prompt": 7}, {}),
    ],
)
def test_a_mistake_that_concerns_the_whole_source_is_reported_as_without_a_split(split, tmp_path, changed, keys):
    rows = [row | changed for row in ROWS]
    for_training = keys | {"adapter": "records", "name": "mine"}
    said = []
    train = for_training | {"path": str(tmp_path / "cases.jsonl")}
    for share, others in (({"test": 0.3}, {}), (None, {"test": {"adapter": "decision_memos", "limit": 1}})):
        with pytest.raises(DataError) as error:
            split(rows, share, train=train, **others)
        said.append(str(error.value))
    with_split, without = (message.partition(" (at least ") for message in said)
    first = "cases.jsonl:1: "
    assert first in without[0]
    reason = without[0].partition(first)[2].partition(":")[0]
    assert f": {reason}: " in with_split[0]
    of_reason = rf"(\d+) {reason} \((?:\S*cases\.jsonl:\d+, ){{3}}…\)"
    found = re.match(rf"(\d+) of 40 rows of data\.train are malformed: {of_reason}; correct them", with_split[2])
    assert found
    assert found[1] == found[2], "all of the same reason"


def test_malformed_rows_of_both_sides_are_a_share_of_all_rows(split):
    rows = [{"prompt": f"q{i}", "reasoning": f"r{i}", "answer": "a"} for i in range(100)]
    _, whole = split(rows, {"test": 0.1})
    tested, trained = (int(whole.test[0].prompt[1:]), int(whole.stores[Form.TAGGED].ids[0].rpartition(":")[2]) - 1)
    for line in (tested, trained):
        one_bad = [row | {"answer": ""} if i == line else row for i, row in enumerate(rows)]
        _, done = split(one_bad, {"test": 0.1}, max_bad_row_share=0.01)
        assert len(done.test) + len(done.stores[Form.TAGGED]) == 99
        with pytest.raises(
            DataError, match=rf"cases\.jsonl:{line + 1}: empty_answer: .* 1 of 100 rows of data\.train are"
        ):
            split(one_bad, {"test": 0.1}, max_bad_row_share=0.005)
    both_bad = [row | {"answer": ""} if i in (tested, trained) else row for i, row in enumerate(rows)]
    with pytest.raises(DataError, match=r" 2 of 100 rows of data\.train are malformed"):
        split(both_bad, {"test": 0.1}, max_bad_row_share=0.01)


def test_a_question_that_is_held_out_is_scored_once_when_repeated_rows_are_dropped(split, capsys):
    _, whole = split(ROWS, {"test": 0.3})
    prompt = whole.test[0].prompt
    (first, *others) = [i for i, row in enumerate(ROWS) if row["prompt"] == prompt]
    rows = [*ROWS, ROWS[first] | {"prompt": f" {prompt.upper()}"}]
    _, kept = split(rows, {"test": 0.3})
    _, done = split(rows, {"test": 0.3}, drop_duplicates=True)
    assert len(kept.test) == len(whole.test) + 1
    assert [example.id for example in done.test] == [example.id for example in whole.test]
    (dropped,) = done.test_report.dropped
    path = whole.test[0].id.rpartition(":")[0]
    assert (dropped.reason, dropped.count) == ("duplicate", 1)
    assert dropped.examples == (f"{path}:41: it repeats {path}:{first + 1}",)
    assert "1 dropped as duplicate" in capsys.readouterr().out
    assert len(others) == sum(example.prompt == prompt for example in done.test) - 1, "other responses are kept"


def test_a_side_without_rows_is_an_error_that_says_what_to_change(split):
    one = [{"prompt": "q0", "reasoning": "r", "answer": "a"}]
    sides = set()
    for seed in range(8):
        with pytest.raises(
            DataError, match=r"cases\.jsonl has no usable row that (falls|does not fall) to the test"
        ) as error:
            split(one, {"test": 0.5, "seed": seed})
        assert "data.split.test=0.5); add rows, or change data.split.test or data.split.seed" in str(error.value)
        sides.add("does not fall" in str(error.value))
    assert sides == {True, False}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.split.test=0"], "data.split.test: must be at least 1e-06, got 0"),
        (["data.split.test=0.51"], "data.split.test: must be at most 0.5, got 0.51"),
        (["data.split={}"], "data.split.test: required key is missing"),
        (
            ["data.split.test=0.1", "data.test={adapter: records, path: test.csv}"],
            "data.test gives another; remove one",
        ),
        ([], "data.test is missing: give a test set, or hold one out of data.train with data.split={test: 0.1}"),
        (
            ["data.split.test=0.1", "data.train=[{adapter: records, path: a.csv}, {adapter: records, path: b/a.csv}]"],
            "data.train (with data.split): give each source its own `name`",
        ),
    ],
)
def test_mistakes_in_a_split_name_the_key(tmp_path, overrides, message):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"run_dir: {tmp_path}/run\nmodel: {{path: m}}\ndata: {{train: {{adapter: records, path: a.csv}}}}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_config([file], overrides)
    assert message in str(error.value)


def test_a_configuration_without_a_split_is_what_it_was():
    source = {"adapter": "records", "path": "a.csv"}
    data = DataConfig.model_validate({"train": source, "test": source | {"path": "b.csv"}})
    assert "split" not in data.model_dump()
    assert (data.train_sources, data.test_sources) == (data.train, data.test)
    assert data.train_sources[0].reading == data.train[0].reading
