"""Being unjudgeable does not pay: what a text causes counts against it, what the infrastructure causes stays open."""

import contextlib
import dataclasses
import json
from types import SimpleNamespace

import pytest

from sftkey_dist.config.answer_check import FunctionCheck
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import JudgeConfig
from sftkey_dist.evaluation.answers import Case, judged_by_check, make_check
from sftkey_dist.evaluation.judge.asking import JudgeReply
from sftkey_dist.evaluation.judge.jury import Jury, make_jury
from sftkey_dist.evaluation.judge.reading import Ruling, read_verdict
from sftkey_dist.evaluation.judge.template import Question
from sftkey_dist.evaluation.judge.voting import Unjudgeable, majority, median_rating
from sftkey_dist.evaluation.score import score_records
from sftkey_dist.evaluation.verdict import Judgement, Verdict, all_of
from sftkey_dist.pipeline.compare import compare
from sftkey_dist.report.finished_runs import read_comparison
from sftkey_dist.report.study.evidence import Evidence
from sftkey_dist.run_dir.artifacts.evaluation import RECORDS, SCORES
from sftkey_dist.training.validation.guard import Guard
from tests.finished_run import write_run
from tests.unit.evaluation.test_score import records_of


class ScriptedJudge:
    """Rules "correct" where the candidate is the reference, and fails as a script says."""

    def __init__(self, failure_of):
        self.asked, self._failure_of = [], failure_of

    def ask(self, chats, reader):
        for key, chat in chats.items():
            self.asked.append(chat.user)
            failure = self._failure_of(chat.user, len(self.asked))
            value = ("correct" if chat.user.count('"42"') == 2 else "incorrect") if reader is read_verdict else "4"
            yield key, JudgeReply(None, failure) if failure else JudgeReply(Ruling(value, ""))

    def close(self):
        pass


def judged(monkeypatch, tmp_path, answers, failure_of, **settings):
    judge = ScriptedJudge(failure_of)
    monkeypatch.setattr(Jury, "_open", lambda self, name, config: judge)
    config = JudgeConfig(judges=[EndpointConfig(url="http://127.0.0.1:1/v1", model="x")], **settings)
    with make_jury(config, tmp_path, ClusterConfig(), 1) as jury:
        ask = jury.rate if settings.get("rubric") else jury.judge
        results, use = ask([Question("What is 6 x 7?", "42", answer) for answer in answers], lambda done: None)
    return results, use, judge


OF_THE_TEXT = [
    "BadRequestError: maximum context length",
    "filtered: flagged",
    "refused",
    "unreadable_reply",
    "thinking_only",
    "empty_reply",
    "HTTP 413",
    "prompt_too_long",
    "cut_off_at_max_tokens",
]


@pytest.mark.parametrize("failure", OF_THE_TEXT)
def test_a_text_that_makes_the_judge_fail_for_good_is_incorrect_and_counted_by_name(monkeypatch, tmp_path, failure):
    fails = lambda user, number: failure if "EVIL" in user else ""  # noqa: E731
    results, use, _ = judged(monkeypatch, tmp_path, ["42", "EVIL", "7"], fails)
    name = failure.partition(":")[0]
    assert [(o.value, o.unjudgeable, o.is_final) for o in results] == [
        ("correct", "", True),
        ("incorrect", name, True),
        ("incorrect", "", True),
    ]
    assert name in results[1].reason
    assert use.failures == {name: 1}


@pytest.mark.parametrize("failure", OF_THE_TEXT)
def test_a_question_that_the_judge_never_rules_on_leaves_its_answers_unjudged(monkeypatch, tmp_path, failure):
    """The question, or the judge itself, is the cause: another candidate would not be judged either."""
    results, _, _ = judged(monkeypatch, tmp_path, ["7", "8"], lambda user, number: failure)
    assert {(o.value, o.unjudgeable) for o in results} == {("", "")}


@pytest.mark.parametrize(
    "failure",
    [
        "APIConnectionError: gone",
        "APITimeoutError",
        "InternalServerError",
        "RateLimitError",
        "out_of_quota",
        "HTTP 408",
    ],
)
def test_failures_of_the_infrastructure_stay_unjudged_and_open(monkeypatch, tmp_path, failure):
    fails = lambda user, number: failure if "EVIL" in user else ""  # noqa: E731
    results, _, judge = judged(monkeypatch, tmp_path, ["42", "EVIL"], fails)
    assert (results[1].value, results[1].unjudgeable, results[1].is_final) == ("", "", False)
    assert len(judge.asked) == 2, "the reference is not asked about where the text cannot be the cause"


def test_a_failure_that_has_passed_when_the_question_is_asked_again_is_not_the_texts(monkeypatch, tmp_path):
    fails = lambda user, number: "unreadable_reply" if number == 1 else ""  # noqa: E731
    results, _, _ = judged(monkeypatch, tmp_path, ["7"], fails)
    assert [(o.value, o.unjudgeable) for o in results] == [("incorrect", "")]


def test_a_spent_budget_says_nothing_of_a_text(monkeypatch, tmp_path):
    results, _, judge = judged(monkeypatch, tmp_path, ["7"], lambda user, number: "refused", most_questions=1)
    assert (results[0].value, results[0].reason, len(judge.asked)) == ("", "refused", 1)


def test_an_explanation_that_makes_the_judge_fail_has_the_worst_rating(monkeypatch, tmp_path):
    fails = lambda user, number: "filtered" if "EVIL" in user else ""  # noqa: E731
    results, _, _ = judged(monkeypatch, tmp_path, ["fine", "EVIL"], fails, rubric="explanation")
    assert [(o.value, o.unjudgeable) for o in results] == [("4", ""), ("1", "filtered")]


def test_a_judge_that_a_text_makes_fail_votes_against_it():
    correct, evil = Ruling("correct", "a"), Unjudgeable("filtered")
    found = majority({"x": correct, "y": evil, "z": evil})
    assert (found.value, found.unjudgeable) == ("incorrect", "filtered")
    assert found.votes == {"x": "correct", "y": "unjudgeable: filtered", "z": "unjudgeable: filtered"}
    assert majority({"x": correct, "y": evil, "z": correct}).value == "correct"
    assert majority({"x": correct, "y": evil}).value == "", "no majority"
    with_rulings = majority({"x": Ruling("incorrect", "b"), "y": evil, "z": Ruling("incorrect", "c")})
    assert (with_rulings.reason, with_rulings.unjudgeable) == ("b", ""), "the rulings alone decide"
    assert median_rating({"x": Ruling("5", ""), "y": evil, "z": evil}).value == "1"


def test_a_check_that_raises_on_the_answer_makes_it_incorrect_and_one_that_raises_on_the_reference_unjudged(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def same(answer, reference, question):\n"
        "    if 'boom' in answer:\n        raise KeyError(answer)\n    return answer == reference\n"
    )
    check = make_check(FunctionCheck(function=f"{file}:same"))
    found = judged_by_check(check, Case("boom", "42"))
    assert (found.verdict, found.unjudgeable) == (Verdict.INCORRECT, "check_raised")
    assert "KeyError" in found.reason
    assert judged_by_check(check, Case("boom", "boom too")).verdict is Verdict.UNJUDGED


def test_a_reader_that_runs_out_of_stack_ends_no_evaluation():
    check = make_check("json")
    deep = dataclasses.replace(check, read=lambda text, _: exhausted() if "deep" in text else text)
    found = judged_by_check(deep, Case("deep", "{}"))
    assert (found.verdict, found.unjudgeable) == (Verdict.INCORRECT, "check_raised")
    assert deep.problem_with("deep", "") == "the reference makes the check raise RecursionError"


def exhausted():
    raise RecursionError("maximum recursion depth exceeded")


def test_of_several_fields_a_plainly_wrong_one_is_the_reason():
    unjudgeable, wrong = Judgement.of_unjudgeable("filtered", "f"), Judgement.of(False, "w")
    assert all_of([unjudgeable, wrong]).reason == "w"
    assert all_of([unjudgeable, Judgement.unjudged("u")]).unjudgeable == "filtered"


def test_forty_right_and_sixty_that_nobody_judged_rank_as_forty_right():
    scores = score_records(records_of("c" * 40 + "u" * 60), 0.7)
    assert (scores.accuracy, scores.accuracy_bounds) == (1.0, (0.4, 1.0))
    assert scores.lowest_score == pytest.approx(0.7 * 0.4 + 0.3)
    assert score_records(records_of("c" * 40 + "i" * 60), 0.7).lowest_score == pytest.approx(scores.lowest_score)


def test_outputs_whose_text_kept_them_from_being_judged_are_counted_apart():
    records = records_of("c" * 40 + "i" * 60)
    records[40:] = [dataclasses.replace(record, unjudgeable="filtered") for record in records[40:]]
    scores = score_records(records, 0.7)
    assert (scores.accuracy, scores.unjudged, scores.unjudgeable) == (0.4, 0, {"filtered": 60})


def unjudge_all_wrong(run, strategy):
    """As a judge leaves it that failed on every wrong answer."""
    folder = run / "evaluation" / strategy
    unjudged = {"verdict": Verdict.UNJUDGED, "reason": "filtered"}
    records = [
        dataclasses.replace(record, **unjudged if record.verdict == "incorrect" else {})
        for record in RECORDS.read(folder / "records.jsonl")
    ]
    RECORDS.write(folder / "records.jsonl", records)
    scores, found = score_records(records, 0.7), SCORES.read(folder / "scores.json")
    found = dataclasses.replace(found, **vars(scores), data_sets=dict.fromkeys(found.data_sets, scores))
    SCORES.write(folder / "scores.json", found)


def test_winners_by_alpha_and_the_best_score_count_unjudged_answers_as_wrong(tmp_path):
    run = write_run(tmp_path / "study", {"sft-tag": 10, "sftkey-tag": 18})
    unjudge_all_wrong(run, "sft-tag")
    found = read_comparison([run])
    assert found.rows[0].scores.accuracy == 1.0, "of those that were judged"
    assert {best.strategies for best in found.alpha_ranges if best.end > 0.01} == {("sftkey-tag",)}
    assert found.best == found.labels[1:]
    _, files = compare([run])
    markdown, page = files[1].read_text(), files[2].read_text()
    for text in (markdown, page):
        assert "accuracy lies between 0.500 and 1.000, 10 outputs are unjudged" in text
        assert "trategies are ranked by the lower bound of accuracy" in text


def test_results_of_a_study_count_unjudged_answers_as_wrong(tmp_path):
    run = write_run(tmp_path / "rates" / "slow" / "seed-3", {"sft-tag": 10, "sftkey-tag": 18})
    unjudge_all_wrong(run, "sft-tag")
    compare([run], run / "comparison.json")
    (run / "done.json").write_text(json.dumps({"digest": "ab"}))
    facts = {"title": "t", "about": "", "command": "c", "seeds": [3], "contrasts": []}
    variants = {"slow": {"about": "", "seeds": [3]}}
    (tmp_path / "rates" / "study.json").write_text(json.dumps(facts | {"variants": variants}))
    results = Evidence.read(tmp_path / "rates").results["slow"]
    assert (results["sft-tag"][3].accuracy, results["sftkey-tag"][3].accuracy) == (0.5, 0.9)
    assert results["sft-tag"][3].score == pytest.approx(0.7 * 0.5 + 0.3)


def test_the_guard_keeps_the_model_with_more_right_answers_not_the_one_with_fewer_judged(monkeypatch):
    guard = object.__new__(Guard)
    guard._alpha = 0.7

    class Engine:
        store_collectives = SimpleNamespace(gather=lambda note: [note])

        def without_partitioning(self):
            return contextlib.nullcontext()

        def gather_to_all(self, records):
            return [records]

    guard._engine = Engine()
    scored = []
    for pattern in ("c" * 50 + "i" * 50, "c" * 40 + "u" * 60):
        monkeypatch.setattr(Guard, "_records_of_this_rank", lambda self, model, pattern=pattern: records_of(pattern))
        scored.append(guard._score_responses(type("Place", (), {"model": None})()))
    assert scored[0].score > scored[1].score
    assert (scored[1].accuracy, scored[1].unjudged) == (1.0, 60)


def test_a_row_of_which_nothing_was_judged_does_not_compete(tmp_path):
    run = write_run(tmp_path / "study", {"sft-tag": 10}, verdict="unjudged")
    found = read_comparison([run])
    assert not found.best
    assert found.leader is None
