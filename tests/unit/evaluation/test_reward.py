"""A reward is the evaluation's score of one response, in the shapes of verl and of TRL."""

import inspect
import pickle
from dataclasses import replace

import pytest

from sftkey_dist import Reward
from sftkey_dist.config import load_config
from sftkey_dist.contract import Form
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.record import make_record
from sftkey_dist.evaluation.score import score_records
from sftkey_dist.files import write_json_atomically
from tests.markdown import ROOT

BASE = ROOT / "configs" / "quickstart.yaml"
RIGHT = "<Thinking>The income is steady.</Thinking><Answer>approve</Answer>"
WRONG = "<Thinking>The income is steady.</Thinking><Answer>reject</Answer>"
BROKEN = "The income is steady. <Answer>approve"
NOTHING = ""
TWO_KEYS = (
    "contract.segments=[{name: why}, {name: code, tag: code, key: true},"
    "{name: note, tag: note, key: true, required: false, delimiter: '\\n## '}]"
)


def reward_of(*overrides, strategy="sft-tag"):
    return Reward.from_config(load_config([BASE], overrides), strategy)


def test_verl_gets_the_score_and_what_it_consists_of():
    reward = reward_of()
    found = [reward.compute_score("own", text, "approve", {"index": 0}) for text in (RIGHT, WRONG, BROKEN, NOTHING)]
    assert [(each["acc"], each["format"]) for each in found] == [(1, 1), (0, 1), (1, 0), (0, 0)]
    assert [each["score"] for each in found] == pytest.approx([1.0, 0.3, 0.7, 0.0])
    assert reward.compute_score(data_source="own", solution_str=RIGHT, ground_truth="approve")["score"] == 1.0


def test_trl_gets_a_reward_per_completion_of_texts_or_messages():
    reward = reward_of("evaluation.alpha=0.5")
    texts = [RIGHT, WRONG, BROKEN, NOTHING]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    columns = {"completion_ids": [[1]] * 4, "trainer_state": None, "other": [0] * 4}
    for completions, prompts in ((texts, ["Which?"] * 4), (chats, [[{"role": "user", "content": "Which?"}]] * 4)):
        found = reward.reward_func(prompts=prompts, completions=completions, ground_truth=["approve"] * 4, **columns)
        assert found == [1.0, 0.5, 0.5, 0.0]


def test_it_is_what_an_evaluation_scores(memos):
    reward = reward_of()
    responses = ["".join(p.text for p in reward.settings.contract.render(m.values, Form.TAGGED)) for m in memos]
    responses = [text[: len(text) - number % 3 * 7] for number, text in enumerate(responses)]
    rewards = reward.reward_func(responses, [memo.values["answer"] for memo in memos])
    (name, *_) = reward.settings.checks
    outputs = [Generation(text, 1, False) for text in responses]
    examples = [replace(memo, data_set=name) for memo in memos]
    records = [make_record(e, output, reward.settings) for e, output in zip(examples, outputs, strict=True)]
    assert 0.3 < sum(rewards) / len(rewards) < 0.99
    assert sum(rewards) / len(rewards) == pytest.approx(score_records(records, 0.7).score)


MALFORMED = [None, [], [{}], [{"role": "assistant", "content": None}], ["x"], 7, "\ud800", "{" * 9999]


@pytest.mark.parametrize("said", MALFORMED)
def test_a_malformed_completion_has_a_reward(said):
    assert reward_of().reward_func([said], ["approve"]) == [0.0]


def test_the_last_message_counts_and_its_content_may_have_parts():
    said = [
        {"role": "assistant", "content": WRONG},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": [{"type": "text", "text": RIGHT}]},
    ]
    assert reward_of().reward_func([said], ["approve"]) == [1.0]
    assert reward_of().reward_func([[*said, {"role": "tool", "content": RIGHT}]], ["approve"]) == [0.0]


def test_the_form_is_that_of_the_strategy():
    plain = "The income is steady.\n#### approve"
    assert reward_of(strategy="sft").compute_score("", plain, "approve")["format"] == 1
    assert reward_of(strategy="sft-tag").compute_score("", plain, "approve")["format"] == 0
    with pytest.raises(ConfigError, match=r"differ in the form of the response: sft \(untagged\), sft-tag \(tagged\)"):
        reward_of(strategy=None)
    with pytest.raises(ConfigError, match=r"'sft-tags': there is no such strategy.*did you mean 'sft-tag'"):
        reward_of(strategy="sft-tags")
    assert reward_of("strategies=[sft-tag, key-tag]", strategy=None).settings.form is Form.TAGGED


def test_the_question_gives_the_options_that_an_answer_is_read_from():
    reward = reward_of("evaluation.answer_check=option")
    question = "Which is a fruit?\nA) stone\nB) apple"
    said = "<Thinking>t</Thinking><Answer>apple</Answer>"
    assert reward.compute_score("", said, "B", {"question": question})["acc"] == 1
    assert reward.compute_score("", said, "B", {})["acc"] == 0
    prompts = [question, [{"role": "system", "content": "Choose."}, {"role": "user", "content": question}]]
    prompts[1] += [{"role": "assistant", "content": "Wait."}, {"role": "tool", "content": "A) apple"}]
    assert reward.reward_func([said, said], ["B", "B"], prompts) == [1.0, 1.0]


def test_an_answer_that_cannot_be_judged_is_left_out_by_trl_and_not_right_for_verl():
    reward = reward_of("evaluation.answer_check=numeric")
    said = "<Thinking>t</Thinking><Answer>12</Answer>"
    assert reward.reward_func([said, said], ["no number", 12]) == [None, 1.0]
    assert reward.compute_score("", said, "no number")["score"] == pytest.approx(0.3)


def test_the_data_source_chooses_among_checks_that_differ():
    data = "data={train: {adapter: decision_memos, limit: 9, name: a, answer_check: exact}, test: %s}"
    differ = data % "{adapter: decision_memos, limit: 9, name: b, answer_check: numeric}"
    said = "<Thinking>t</Thinking><Answer>12.0</Answer>"
    reward = reward_of(differ)
    assert reward.reward_func([said, said], ["12", "12"], data_source=["a", "b"]) == [pytest.approx(0.3), 1.0]
    with pytest.raises(ConfigError, match=r"data_source 'bb' is none .*: a, b; name one .*did you mean 'b'\?"):
        reward.compute_score("bb", said, "12")
    same = reward_of(differ.replace("numeric", "exact"))
    assert same.compute_score("openai/gsm8k", said, "12.0")["acc"] == 1


def test_several_key_segments_have_a_reference_each():
    reward = reward_of(TWO_KEYS)
    both, one = "<Why>w</Why><code>7</code><note>n</note>", "<Why>w</Why><code>7</code>"
    assert reward.compute_score("", both, {"code": 7, "note": "n"})["score"] == 1
    assert reward.compute_score("", both, {"code": 7, "note": None})["acc"] == 0
    assert reward.compute_score("", one, {"code": 7})["score"] == 1
    for wrong, message in (
        ("7", "ground_truth must be a mapping with a text for each of code, note"),
        ({"note": "n"}, "ground_truth has no text for code"),
        ({"code": object()}, "ground_truth of code is of type object"),
    ):
        with pytest.raises(DataError, match=message):
            reward.compute_score("", both, wrong)


def test_a_run_is_read_from_its_folder(tmp_path):
    config = load_config([BASE], [f"run_dir={tmp_path / 'run'}", "evaluation.alpha=0.9"])
    write_json_atomically(tmp_path / "run" / "config.json", config.model_dump(mode="json"))
    reward = Reward.from_run(tmp_path / "run", "sft-tag")
    assert reward == Reward.from_config(config, "sft-tag")
    assert reward.compute_score("", BROKEN, "approve")["score"] == pytest.approx(0.9)
    with pytest.raises(ConfigError, match=r"other: no config\.json"):
        Reward.from_run(tmp_path / "other")


def test_tags_that_trainers_remove_are_refused():
    with pytest.raises(ConfigError, match="verl and TRL remove special tokens"):
        reward_of("contract.special_token_tags=true")


def test_trainers_can_name_the_functions_call_them_by_keyword_and_send_them_to_other_processes():
    reward = reward_of()
    assert list(inspect.signature(reward.compute_score).parameters) == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]
    assert reward.reward_func.__name__ == "reward_func"
    assert pickle.loads(pickle.dumps(reward.compute_score))("", RIGHT, "approve")["score"] == 1
