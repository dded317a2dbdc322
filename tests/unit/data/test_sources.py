"""Adapters on real rows of each schema, mixtures, and limits on malformed rows."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from sftkey_dist.config.data import DataConfig, SourceConfig
from sftkey_dist.contract import ResponseContract, Segment
from sftkey_dist.data.adapters.layouts import make_adapter
from sftkey_dist.data.adapters.sources import copies_of, read_examples, shards_of
from sftkey_dist.data.example import Example, Refusal, Turn
from sftkey_dist.data.memos import MemoStyle, decide, generate_memos
from sftkey_dist.data.whole import read_all
from sftkey_dist.errors import ConfigError, DataError

CONTRACT = ResponseContract()
SHARED = Path(__file__).parents[4] / "shared" / "data"
GSM8K_ROW = {
    "question": "Natalia sold clips to 48 of her friends. How many in all?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
}
OPENBOOKQA_HUB_ROW = {
    "id": "7-980",
    "question_stem": "The sun is responsible for",
    "choices": {"text": ["puppies learning new tricks", "plants sprouting"], "label": ["A", "B"]},
    "answerKey": "B",
    "fact1": "the sun is the source of energy for physical cycles on Earth",
}
OPENBOOKQA_ROW = {
    "id": "8-343",
    "question": {
        "stem": "Predators eat",
        "choices": [{"text": "bunnies", "label": "A"}, {"text": "grass", "label": "B"}],
    },
    "answerKey": "A",
}
OPENR1_ROW = {
    "problem": "What is 2+2?",
    "answer": "4",
    "generations": ["<think>It is 5.</think>\\boxed{5}", "<think>\nIt is 4.\n</think>\n\nSo \\boxed{4}"],
    "correctness_math_verify": [False, True],
    "is_reasoning_complete": [True, True],
}
COT_ROW = {"source": "What is cold?", "target": "ice cream", "rationale": "It is frozen.", "task": "q", "type": "CoT"}


def write_rows(path, rows, adapter="gsm8k", **keys):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return SourceConfig(adapter=adapter, path=str(path), **keys)


def read(source, contract=CONTRACT):
    return [item for shard in shards_of(source, 7) for item in read_examples(source, contract, shard)]


@pytest.fixture
def one(tmp_path):
    """The example, or the refusal, of one row."""

    def make(row, adapter, contract=CONTRACT, **keys):
        (item,) = read(write_rows(tmp_path / "one.jsonl", [row], adapter, **keys), contract)
        return item

    return make


def test_gsm8k_strips_calculator_marks_and_splits_at_the_last_line(one, tmp_path):
    example = one(GSM8K_ROW, "gsm8k")
    assert example.prompt == GSM8K_ROW["question"]
    assert example.values == {"reasoning": "Natalia sold 48/2 = 24 clips in May.\nIn all 48+24 = 72.", "answer": "72"}
    assert example.id == f"{tmp_path / 'one.jsonl'}:1"


def test_openbookqa_in_the_hubs_schema_and_in_its_original_one(one):
    hub = one(OPENBOOKQA_HUB_ROW, "openbookqa")
    assert hub.prompt == "The sun is responsible for\nA. puppies learning new tricks\nB. plants sprouting"
    assert hub.values == {"reasoning": OPENBOOKQA_HUB_ROW["fact1"], "answer": "B"}
    original = one(OPENBOOKQA_ROW, "openbookqa")
    assert original.prompt == "Predators eat\nA. bunnies\nB. grass"
    assert original.values == {"reasoning": "", "answer": "A"}
    assert one(OPENBOOKQA_ROW | {"answerKey": "E"}, "openbookqa").reason == "no_such_option"


def test_openr1_takes_the_first_complete_and_verified_generation(one):
    assert one(OPENR1_ROW, "openr1_math").values == {"reasoning": "It is 4.", "answer": "4"}
    assert one(OPENR1_ROW | {"is_reasoning_complete": [True, False]}, "openr1_math").reason == "no_correct_generation"
    assert one(OPENR1_ROW | {"generations": ["a", "b"]}, "openr1_math").reason == "no_reasoning"


def test_cot_collection(one):
    example = one(COT_ROW, "cot_collection")
    assert (example.prompt, example.values) == (
        "What is cold?",
        {"reasoning": "It is frozen.", "answer": "ice cream"},
    )


def test_records_name_a_column_a_segment_and_may_fill_a_template(one):
    row = {"q": "2+2", "options": ["3", "4"], "meta": {"why": "count"}, "label": 4}
    columns = {"reasoning": "meta.why", "answer": "label"}
    example = one(row, "records", prompt="Q: {q}\n{options}", columns=columns)
    assert example.prompt == "Q: 2+2\n3\n4"
    assert example.values == {"reasoning": "count", "answer": "4"}
    segmented = {"prompt": "2+2", "segments": {"reasoning": "count", "answer": "4"}}
    assert one(segmented, "records").values == {"reasoning": "count", "answer": "4"}
    missing = one({"prompt": "2+2", "reasoning": "r"}, "records")
    assert (missing.reason, "'answer'" in missing.detail, "'prompt'" in missing.detail) == ("missing_field", True, True)


def test_optional_segments_may_be_absent_from_records(one):
    contract = ResponseContract(segments=(Segment(name="reasoning", required=False), Segment(name="answer", key=True)))
    assert one({"prompt": "p", "answer": "a"}, "records", contract).values["reasoning"] == ""


def test_a_completion_is_cut_by_rules_or_by_the_contract(one):
    boxed = {"problem": "p", "solution": "so \\boxed{\\frac{1}{2}}."}
    keys = {"prompt": "problem", "response": "solution"}
    assert one(boxed, "prompt_completion", rules=["boxed"], **keys).values == {
        "reasoning": "so \\boxed{\\frac{1}{2}}.",
        "answer": "\\frac{1}{2}",
    }
    assert one(boxed, "prompt_completion", **keys).reason == "not_segmented"
    for text in ("<Thinking>r</Thinking><Answer>a</Answer>", "r\n#### a"):
        assert one({"prompt": "p", "completion": text}, "prompt_completion").values == {"reasoning": "r", "answer": "a"}
    disagreeing = {"prompt": "p", "completion": "it is \\boxed{3}\nThe answer is 4"}
    assert one(disagreeing, "prompt_completion", rules=["default"]).reason == "rules_disagree"


def test_only_the_last_assistant_turn_of_a_conversation_is_segmented(one):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "x\n#### y"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "r\n#### a"},
    ]
    example = one({"messages": turns}, "messages")
    assert example.prompt == "two"
    assert example.values == {"reasoning": "r", "answer": "a"}
    assert example.history == (Turn("system", "Be brief."), Turn("user", "one"), Turn("assistant", "x\n#### y"))
    assert one({"messages": turns[:-1]}, "messages").reason == "no_last_answer"
    assert one({"messages": [{"role": "robot", "content": "x"}]}, "messages").reason == "unknown_role"


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
    ],
)
def test_malformed_rows_are_refused_with_reason_and_place(tmp_path, row, reason):
    good, bad = read(write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW, row]))
    assert isinstance(good, Example)
    assert isinstance(bad, Refusal)
    assert bad.reason == reason
    assert bad.id.endswith("rows.jsonl:2")


@pytest.mark.parametrize("adapter", ["gsm8k", "openbookqa", "openr1_math", "cot_collection", "records", "messages"])
@pytest.mark.parametrize("row", [{}, {"question": 3}, {"messages": 1}, {"choices": None, "question": {}}])
def test_no_adapter_crashes_on_a_row_of_another_shape(one, adapter, row):
    assert isinstance(one(row, adapter), Refusal)


def test_a_contract_that_an_adapter_cannot_fill_is_a_configuration_error(tmp_path):
    contract = ResponseContract(segments=(Segment(name="decision", key=True),))
    with pytest.raises(ConfigError, match="'decision' is required, but adapter gsm8k provides"):
        read(write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW]), contract)
    with pytest.raises(ConfigError, match="no segment 'verdict'; it has decision"):
        read(write_rows(tmp_path / "r.jsonl", [{}], "records", columns={"verdict": "x"}), contract)


def test_a_rule_that_names_a_segment_the_contract_lacks_is_a_configuration_error():
    rule = {"regex": r"(?P<reasoning>.+) (?P<note>.+) (?P<answer>.+)"}
    source = SourceConfig.model_validate({"adapter": "prompt_completion", "path": "x.jsonl", "rules": [rule]})
    with pytest.raises(ConfigError, match="no segment 'note'"):
        make_adapter(source, ResponseContract())


def test_malformed_rows_stop_above_the_allowed_share(tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW] * 99 + [{"question": "q", "answer": "none"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:100: no_answer: .*1 of 100 rows"):
        read_all("test", [source], CONTRACT, max_bad_row_share=0.0)
    examples, refusals = read_all("test", [source], CONTRACT, max_bad_row_share=0.01)
    assert (len(examples), len(refusals)) == (99, 1)


def test_malformed_rows_are_named_by_reason(tmp_path):
    bad = [{"question": "q", "answer": "none"}] * 4 + [{"question": "", "answer": "#### 1"}]
    source = write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW, *bad])
    with pytest.raises(DataError) as error:
        read_all("test", [source], CONTRACT, max_bad_row_share=0.5)
    assert "at least 5 of 6 rows of data.test are malformed: 4 no_answer (" in str(error.value)
    named = re.findall(r"rows\.jsonl:(\d)", str(error.value).partition("malformed: ")[2])
    assert named == ["2", "3", "4", "6"], "three of the first reason, and the one of the second"


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no usable row"):
        read_all("test", [SourceConfig(adapter="gsm8k", path=str(tmp_path / "rows.jsonl"))], CONTRACT, 0.0)


def test_a_test_row_without_an_allowed_reference_is_refused(tmp_path):
    segments = (Segment(name="answer", key=True, check={"one_of": ("yes", "no")}),)
    source = write_rows(tmp_path / "r.jsonl", [{"prompt": "p", "answer": a} for a in ("yes", "maybe")], "records")
    examples, (refusal,) = read_all("test", [source], ResponseContract(segments=segments), 0.5)
    assert len(examples) == 1
    assert refusal.reason == "invalid_answer"


@pytest.mark.parametrize(("weight", "expected"), [(0.25, 500), (1.0, 2000), (2.0, 4000), (1.5, 3000)])
def test_a_mixtures_weight_is_the_share_of_rows_it_takes(tmp_path, weight, expected):
    source = write_rows(tmp_path / "rows.jsonl", [GSM8K_ROW] * 2000, weight=weight)
    copies = copies_of(source)
    taken = [copies(example) for example in read(source)]
    assert sum(taken) == pytest.approx(expected, rel=0.1 if weight % 1 else 0)
    assert set(taken) <= {int(weight), int(weight) + 1}
    again = copies_of(source)
    assert [again(example) for example in read(source)] == taken
    elsewhere = tmp_path / "moved" / "rows.jsonl"
    elsewhere.parent.mkdir()
    moved = source.model_copy(update={"path": str(shutil.copy(tmp_path / "rows.jsonl", elsewhere))})
    assert [again(example) for example in read(moved)] == taken, "the folder does not matter"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"adapter": "gsm8k", "path": "x.jsonl", "columns": {"answer": "a"}}, "gsm8k does not use columns"),
        ({"adapter": "records"}, "give `path`"),
        ({"adapter": "prompt_completion", "path": "x", "rules": [{"regex": "(a"}]}, "does not compile"),
        ({"adapter": "prompt_completion", "path": "x", "rules": [{"regex": "a"}]}, "needs a named group"),
    ],
)
def test_impossible_sources_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        SourceConfig.model_validate(keys)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not beside the project")
@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({"adapter": "gsm8k", "path": "gsm8k/train.jsonl"}, 7473),
        ({"adapter": "gsm8k", "path": "gsm8k/test.jsonl"}, 1319),
        ({"adapter": "openbookqa", "path": "openbookqa/train.jsonl"}, 4957),
        ({"adapter": "openbookqa", "path": "openbookqa/test.jsonl"}, 500),
        (
            {
                "adapter": "prompt_completion",
                "path": "minerva_math/test.jsonl",
                "prompt": "problem",
                "response": "solution",
                "rules": ["boxed"],
            },
            272,
        ),
        (
            {
                "adapter": "records",
                "path": "aqua/test.jsonl",
                "prompt": "{question}\n{options}",
                "columns": {"reasoning": "rationale", "answer": "correct"},
            },
            254,
        ),
    ],
)
def test_every_row_of_the_data_sets_becomes_an_example(keys, rows):
    items = read(SourceConfig.model_validate(keys | {"path": str(SHARED / keys["path"])}))
    assert Counter(type(item) for item in items) == {Example: rows}


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


def test_memos_of_any_length_are_about_the_same_cases():
    standard, brief, long = (
        list(generate_memos("train", 200, 0, MemoStyle(reasoning_length=length)))
        for length in ("standard", "brief", "long")
    )
    for usual, short, padded in zip(standard, brief, long, strict=True):
        assert usual.prompt == short.prompt == padded.prompt
        assert usual.values["answer"] == short.values["answer"] == padded.values["answer"]
        words = [len(memo.values["reasoning"].split()) for memo in (short, usual, padded)]
        assert words[0] < 26 < 3 * words[0] < 1.8 * words[1] < words[2]
        sentences = iter(padded.values["reasoning"].split(". "))
        assert all(sentence in sentences for sentence in usual.values["reasoning"].split(". "))


@pytest.mark.parametrize("rule", ["one_fact", "points", "points_and_veto"])
def test_decisions_follow_the_rule_that_a_source_names(rule):
    source = SourceConfig.model_validate({"adapter": "decision_memos", "limit": 300, "decision_rule": rule})
    decisions = [memo.values["answer"] for memo in read(source)]
    assert set(decisions) == {"approve", "review", "reject"}
    usual = [memo.values["answer"] for memo in generate_memos("train", 300, 0)]
    assert (decisions == usual) == (rule == "points_and_veto")


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


def test_the_simpler_rules_of_the_memos():
    unsecured = {"income": 0, "debt": 0, "payments": 2, "security": 2}
    assert decide(unsecured, "points") == "review"
    assert decide(unsecured, "one_fact") == "reject"
    assert decide(unsecured | {"payments": 0, "income": 2, "debt": 2}, "one_fact") == "approve"


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"adapter": "records", "path": "data/tickets_test.CSV"}, "tickets_test"),
        ({"adapter": "messages", "path": "chats.jsonl.gz", "split": "test"}, "chats"),
        ({"adapter": "records", "path": "CASES.CSV.ZST"}, "CASES"),
        ({"adapter": "records", "path": "data/*.jsonl", "split": "test"}, "records/test"),
        ({"adapter": "records", "path": "org/data.v1", "split": "test"}, "records/test"),
        ({"adapter": "gsm8k", "path": "test.jsonl", "split": "test"}, "gsm8k/test"),
        ({"adapter": "records", "path": "a.csv", "name": "mine"}, "mine"),
    ],
)
def test_a_source_is_named_after_its_file(keys, name):
    assert SourceConfig.model_validate(keys).data_set == name


DECISIONS = ResponseContract(
    segments=[
        Segment(name="reasoning"),
        Segment(name="decision", key=True, check={"one_of": ["approve", "reject"]}),
    ]
)
LABELS = {"decision": {"approved": "approve", "Ja": "approve", "denied": "reject"}}


def test_labels_give_the_values_of_a_segment_one_spelling(tmp_path):
    rows = [
        {"prompt": "a", "reasoning": "denied", "decision": spelling}
        for spelling in ("approved", " Ja\n", "approve", "DENIED", "Nein")
    ]
    source = write_rows(tmp_path / "rows.jsonl", rows, "records", labels=LABELS)
    values = [example.values for example in read(source, DECISIONS)]
    assert [each["decision"] for each in values] == ["approve", "approve", "approve", "reject", "Nein"]
    assert {each["reasoning"] for each in values} == {"denied"}
    examples, refused = read_all("test", [source], DECISIONS, 0.2)
    assert len(examples) == 4
    assert [(refusal.id, refusal.reason) for refusal in refused] == [(f"{tmp_path}/rows.jsonl:5", "invalid_decision")]


def test_capitals_of_a_spelling_decide_where_nothing_else_does(tmp_path):
    labels = {
        "decision": {"OK": "approve", "ok": "reject", "Straße": "reject", "STRASSE": "reject", "Approve": "reject"}
    }
    spellings = ("OK", "ok", "Ok", "strasse", "approve")
    rows = [{"prompt": "a", "reasoning": "r", "decision": spelling} for spelling in spellings]
    source = write_rows(tmp_path / "rows.jsonl", rows, "records", labels=labels)
    assert [example.values["decision"] for example in read(source, DECISIONS)] == [
        "approve",
        "reject",
        "Ok",
        "reject",
        "approve",
    ]


def test_labels_apply_to_what_a_rule_finds_and_to_a_known_data_set(tmp_path):
    rule = {"regex": r"(?P<reasoning>.+)\nVerdict: (?P<decision>.+)"}
    row = {"prompt": "a", "completion": "He earns well.\nVerdict: approved"}
    source = write_rows(tmp_path / "a.jsonl", [row], "prompt_completion", rules=(rule,), labels=LABELS)
    assert [example.values["decision"] for example in read(source, DECISIONS)] == ["approve"]
    known = write_rows(tmp_path / "b.jsonl", [GSM8K_ROW], labels={"answer": {"72": "seventy-two"}})
    assert [example.values["answer"] for example in read(known)] == ["seventy-two"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"decison": {"a": "approve"}},
            "labels: the contract has no segment 'decison'; did you mean decision\\? it has reasoning,",
        ),
        ({"decision": {"ok": "aprove"}}, r"labels\.decision: the label of 'ok' is not allowed .*'aprove'"),
    ],
)
def test_labels_that_the_contract_does_not_have_are_named(labels, message):
    with pytest.raises(ConfigError, match=message):
        make_adapter(SourceConfig(adapter="records", path="rows.jsonl", labels=labels), DECISIONS)


def test_labels_enter_what_identifies_a_source_only_where_they_are_given():
    plain, mapped = (SourceConfig(adapter="records", path="a.csv", labels=labels) for labels in ({}, LABELS))
    assert "labels" not in plain.reading
    assert mapped.reading == plain.reading | {"labels": LABELS}
    with pytest.raises(ValueError, match="adapter decision_memos does not use labels"):
        SourceConfig(adapter="decision_memos", limit=1, labels=LABELS)


def test_a_row_has_the_loss_weight_of_its_column_or_is_refused(tmp_path):
    row = {"prompt": "p", "reasoning": "r", "answer": "a"}
    weights = [2, "0.5", 0, None, "high", True, -1, "nan", 1e-50]
    rows = [row | {"quality": {"score": weight}} for weight in weights]
    source = write_rows(tmp_path / "rows.jsonl", rows, "records", loss_weight_column="quality.score")
    found = read(source)
    assert [item.loss_weight for item in found[:3]] == [2.0, 0.5, 0.0]
    assert [item.reason for item in found[3:]] == ["missing_field", *["invalid_loss_weight"] * 5]
    assert "field 'quality.score' must be 0 or a number from 1e-06 to 1,000,000, found 'high'" in found[4].detail


def test_loss_weights_are_for_training_rows_that_are_read():
    memos = {"adapter": "decision_memos", "limit": 1}
    weighted = {"adapter": "records", "path": "rows.jsonl", "loss_weight_column": "w"}
    with pytest.raises(ValueError, match="loss_weight_column is for training sources"):
        DataConfig(train=memos, test=weighted)
    with pytest.raises(ValueError, match="decision_memos does not use loss_weight_column"):
        SourceConfig(**memos, loss_weight_column="w")
    assert "loss_weight_column" not in SourceConfig(adapter="records", path="rows.jsonl").reading


@pytest.mark.parametrize(
    ("text", "trained"),
    [
        ("42\r\n", "42"),
        (" approve\n", "approve"),
        ("\n\n42", "42"),
        ("\n    if x:\n        y()\n", "    if x:\n        y()"),
        ("two\n\nparagraphs", "two\n\nparagraphs"),
    ],
)
def test_white_space_around_a_value_is_no_part_of_the_answer(one, text, trained):
    assert one({"prompt": "q", "reasoning": "r", "answer": text}, "records").values["answer"] == trained
    response = f"<Thinking>r</Thinking><Answer>{text}</Answer>"
    assert one({"prompt": "q", "completion": response}, "prompt_completion", response="completion").values == {
        "reasoning": "r",
        "answer": trained,
    }


def test_a_mark_that_a_message_is_not_trained_holds_for_the_last_one_too(one):
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<Thinking>r</Thinking><Answer>a</Answer>", "weight": 0},
    ]
    refused = one({"messages": turns}, "messages")
    assert (refused.reason, "trained_turns: all" in refused.detail) == ("no_trained_turn", True)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": ["half \ud800"]}, {"role": "assistant", "content": "x\n#### y"}]},
        {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x\n#### y"}],
            "chat_template_kwargs": {"mode": "\ud800"},
        },
    ],
)
def test_half_a_character_is_named_wherever_it_stands(one, row):
    assert one(row, "messages").reason == "not_unicode"


def test_the_column_that_a_row_has_is_named(one):
    refused = one({"conversations": [{"from": "robot", "value": "x"}]}, "messages")
    assert "field 'conversations' has a message of role 'robot'" in refused.detail


def test_a_byte_order_mark_before_a_blank_line_is_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + json.dumps(GSM8K_ROW).encode() + b"\n")
    (found,) = read(SourceConfig(adapter="gsm8k", path=str(path)))
    assert isinstance(found, Example)
