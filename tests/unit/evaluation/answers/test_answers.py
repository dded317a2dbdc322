"""Finding answers and comparing them; the labelled set is judged against a person's labels."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter

from sftkey_dist.config.answer_check import (
    AnswerCheck,
    CheckName,
    FunctionCheck,
    JsonCheck,
    LabelCheck,
    RegexCheck,
    without_folders,
)
from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.contract.segment import Check as SegmentCheck
from sftkey_dist.contract.segment import NumberRange, Segment
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.answers import Case, find_answer, first_same, judged_by_check, make_check
from sftkey_dist.evaluation.answers.choose import checks_in_words, choose_checks, common_checks
from sftkey_dist.evaluation.verdict import Verdict

CONTRACT = ResponseContract()
CORRECT, INCORRECT, UNJUDGED = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNJUDGED
CASES = Path(__file__).parents[3] / "assets" / "answer_cases.jsonl"
"""Inputs of other projects' reports, and of an audit of this one."""
LABELLED = Path(__file__).parents[3] / "assets" / "labelled_answers.jsonl"
QUESTION = "How can a person save money?\nA. make more calls\nB. quit eating lunch out\nC. buy less\nD. buy less rice"


def verdict(check, answer, reference, question=""):
    return make_check(check)(Case(answer, reference, question)).verdict


@pytest.mark.parametrize(
    ("output", "form", "text", "source"),
    [
        ("<Thinking>t</Thinking><Answer> 42 </Answer>", Form.TAGGED, "42", "strict"),
        ("<Thinking>t<Answer>42</Answer> bye", Form.TAGGED, "42", "lenient"),
        ("<Answer>1</Answer><Answer>42", Form.TAGGED, "42", "lenient"),
        ("<Answer>42<Thinking>it was 7</Thinking>", Form.TAGGED, "42", "lenient"),
        ("<Thinking>3 + 4 = 7</Thinking>\n42", Form.TAGGED, "42", "lenient"),
        ("<Thinking>3 + 4 = 7</Thinking>42</Answer>", Form.TAGGED, "42", "lenient"),
        ("<thinking>t</thinking><answer>42</answer>", Form.TAGGED, "42", "lenient"),
        ("<Thinking>t</Thinking><Answer>42</Ans", Form.TAGGED, "42", "lenient"),
        ("<Thinking>42</Thinking>", Form.TAGGED, "<Thinking>42</Thinking>", "whole"),
        ("just 42", Form.TAGGED, "just 42", "whole"),
        ("", Form.TAGGED, "", "whole"),
        ("steps\n#### 42", Form.UNTAGGED, "42", "strict"),
        ("steps #### 41\n#### 42\n", Form.UNTAGGED, "42", "strict"),
        ("#### 42", Form.UNTAGGED, "42", "lenient"),
        ("no delimiter, 42", Form.UNTAGGED, "no delimiter, 42", "whole"),
    ],
)
def test_answers_are_read_strictly_or_looked_for(output, form, text, source):
    found = find_answer(output, CONTRACT, form, "answer")
    assert (found.text, found.source) == (text, source)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("72", "72", CORRECT),
        ("$1,234.50", "1234.5", CORRECT),
        ("The answer is 72.", "72", CORRECT),
        ("72 apples, not 73", "72", CORRECT),
        ("-5", "5", INCORRECT),
        ("\u22125", "-5", CORRECT),
        ("10-5", "5", CORRECT),
        ("0.1", "0.10", CORRECT),
        ("1000000000000000000000001", "1000000000000000000000000", INCORRECT),
        ("seventy-two", "72", CORRECT),
        ("", "72", INCORRECT),
        ("72", "none", INCORRECT),
        ("72", "see the figure", UNJUDGED),
        ("3/4", "0.75", CORRECT),
        ("1 1/2 cups", "1.5", CORRECT),
        ("\\frac{3}{4}", "0.75", CORRECT),
        ("\\dfrac{1}{3}", "0.33", INCORRECT),
        ("50%", "0.5", CORRECT),
        ("50 percent", "50", CORRECT),
        ("50%", "5", INCORRECT),
        ("5 km", "5 m", INCORRECT),
        ("5 hours", "5 hrs", CORRECT),
        ("$20", "20 dollars", CORRECT),
        ("2.5 million", "2,500,000", CORRECT),
        ("6.02e3", "6020", CORRECT),
        ("1e999999999", "3", INCORRECT),
    ],
)
def test_numeric_check(answer, reference, expected):
    assert verdict("numeric", answer, reference) is expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Approve.", "approve", CORRECT),
        ("  re  view ", "re view", CORRECT),
        ("**approve**", "approve", CORRECT),
        ("approve reject", "approve", INCORRECT),
        ("", "approve", INCORRECT),
        ("approve", " ", UNJUDGED),
    ],
)
def test_exact_check(answer, reference, expected):
    assert verdict("exact", answer, reference) is expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("\\frac12", "0.5", CORRECT),
        ("\\boxed{2\\sqrt{3}}", "\\sqrt{12}", CORRECT),
        ("x^2+2x+1", "(x+1)^2", CORRECT),
        ("x^2+2x+2", "(x+1)^2", INCORRECT),
        ("(2,1)", "(1,2)", INCORRECT),
        ("9^{9^{9^{9}}}", "3", INCORRECT),
        ("3", "3", CORRECT),
    ],
)
def test_math_check_survives_expressions_that_take_forever(answer, reference, expected):
    assert verdict("math", answer, reference) is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", CORRECT),
        ("(b).", CORRECT),
        ("B. quit eating lunch out", CORRECT),
        ("Quit eating lunch out", CORRECT),
        ("The answer is B because A is silly", CORRECT),
        ("he should quit eating lunch out!", CORRECT),
        ("A", INCORRECT),
        ("A or B", INCORRECT),
        ("E", INCORRECT),
        ("make more calls", INCORRECT),
    ],
)
def test_option_check(answer, expected):
    assert verdict("option", answer, "B", QUESTION) is expected


def test_an_option_whose_text_holds_another_is_told_apart_and_a_reference_without_letter_is_not_judged():
    assert verdict("option", "buy less rice", "D", QUESTION) is CORRECT
    assert verdict("option", "buy less", "C", QUESTION) is CORRECT
    assert verdict("option", "C", "none of them", QUESTION) is UNJUDGED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Approve", CORRECT),
        ("I would approve it.", CORRECT),
        ("approve with conditions", INCORRECT),
        ("approve or reject", INCORRECT),
        ("disapprove", INCORRECT),
    ],
)
def test_label_check(answer, expected):
    check = LabelCheck(labels=("approve", "approve with conditions", "reject"))
    assert verdict(check, answer, "approve") is expected


def test_json_check_compares_values_or_chosen_fields():
    assert verdict("json", '{"b": 1.0, "a": ["X "]}', '{"a": ["x"], "b": 1}') is CORRECT
    assert verdict("json", '{"a": true}', '{"a": 1}') is INCORRECT
    assert verdict("json", '{"a": 1, "c": 2}', '{"a": 1}') is INCORRECT
    assert verdict(JsonCheck(json_fields=("a.b",)), '{"a": {"b": 1}, "c": 2}', '{"a": {"b": 1}}') is CORRECT
    assert verdict("json", "no json", '{"a": 1}') is INCORRECT
    assert verdict("json", "{}", "no json") is UNJUDGED


def test_regex_check_compares_what_it_finds_last():
    check = RegexCheck(regex=r"account (\d+)")
    assert verdict(check, "account 12, rather account 4400", "Account: account 4400") is CORRECT
    assert verdict(check, "account 12", "account 4400") is INCORRECT
    assert verdict(check, "4400", "account 4400") is INCORRECT


def test_a_function_of_the_users_judges_or_says_that_it_cannot_and_its_failure_loses_no_row(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def same(answer, reference, question):\n"
        "    if answer == 'boom':\n        raise KeyError(answer)\n"
        "    return None if question == '?' else answer[0] == reference[0]\n"
    )
    check = FunctionCheck(function=f"{file}:same")
    assert verdict(check, "yes", "yep") is CORRECT
    assert verdict(check, "no", "yep") is INCORRECT
    assert verdict(check, "yes", "yep", "?") is UNJUDGED
    file.write_text("def share(answer, reference, question):\n    return 0.1\n")
    changed = FunctionCheck(function=f"{file}:same", digest="ab")
    file.write_text(file.read_text() + "def same(answer, reference, question):\n    return False\n")
    assert verdict(changed, "yes", "yep") is INCORRECT, "a changed file is loaded again"
    score = judged_by_check(make_check(FunctionCheck(function=f"{file}:share")), Case("yes", "yep"))
    assert (score.verdict, "it returns float, not True, False or None" in score.reason) == (UNJUDGED, True)
    for broken in (f"{file}:other", f"{tmp_path}/none.py:same", "no.such.module:f"):
        with pytest.raises(ConfigError, match=r"answer_check\.function"):
            make_check(FunctionCheck(function=broken))


def test_certain_is_what_no_judge_would_see_otherwise():
    assert make_check("numeric")(Case("72 hours.", "72 hours")).certain
    assert not make_check("numeric")(Case("72 apples", "72")).certain, "a word may change the number"
    assert make_check("numeric")(Case("73", "72")).certain
    assert not make_check("numeric")(Case("it may be 73", "72")).certain
    assert make_check("exact")(Case("Yes.", "yes")).certain
    assert not make_check("exact")(Case("yeah", "yes")).certain


def test_checks_are_chosen_by_setting_then_contract_then_data_set():
    contract = ResponseContract(
        segments=(
            Segment(name="reasoning"),
            Segment(name="grade", key=True, check=SegmentCheck(one_of=("A", "B"))),
            Segment(name="amount", key=True, check=SegmentCheck(number=NumberRange())),
            Segment(name="answer", key=True),
            Segment(name="note", key=True),
        )
    )
    gsm8k = SourceConfig(adapter="gsm8k", path="x.jsonl")
    mine = SourceConfig(adapter="records", path="y.jsonl", answer_check="json", name="mine")
    chosen = choose_checks([gsm8k, mine], contract, EvaluationConfig(answer_checks={"note": "math"}))
    assert chosen["gsm8k/train"] == {
        "grade": LabelCheck(labels=("A", "B")),
        "amount": "numeric",
        "answer": "numeric",
        "note": "math",
    }
    assert set(chosen["mine"].values()) == {"json"}
    assert common_checks([gsm8k, mine], contract, EvaluationConfig())["answer"] == "exact"


def test_deterministic_checks_agree_with_a_person_on_the_labelled_set():
    lines = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    assert len(lines) >= 200
    assert {line["check"] for line in lines} >= {"numeric", "option", "math", "exact"}
    wrong = [
        line
        for line in lines
        if verdict(line["check"], line["answer"], line["reference"], line["question"]) != line["label"]
    ]
    assert len(wrong) <= 0.01 * len(lines), wrong


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The answer:\n- 5 apples", "5", CORRECT),
        ("Total - $5", "5", CORRECT),
        ("-$5", "-5", CORRECT),
        ("2\\frac{1}{2}", "2.5", CORRECT),
        ("2\\frac{1}{2}", "21/2", INCORRECT),
        ("She makes $18 in total", "$18", CORRECT),
        ("1" * 5000, "5", INCORRECT),
        ("1e" + "9" * 5000, "5", INCORRECT),
        ("5" + " " * 20_000 + "x", "5", CORRECT),
    ],
)
def test_numbers_as_models_write_them_whatever_they_write(answer, reference, expected):
    assert verdict("numeric", answer, reference) is expected


@pytest.mark.parametrize(("answer", "reference"), [("0.33", "1/3"), ("60 minutes", "1 hour"), ("100 cents", "$1")])
def test_a_judge_may_see_otherwise_what_the_numeric_check_cannot_convert(answer, reference):
    assert not make_check("numeric")(Case(answer, reference)).certain


@pytest.mark.parametrize(
    "answer",
    [
        "The correct answer is: B",
        "The answer is: B.",
        "Answer: B because it boils",
        "Option B is correct.",
        "**Answer:** B",
        "\\boxed{B}",
        "$B$",
        "B because it is cheaper",
    ],
)
def test_options_as_models_name_them(answer):
    assert verdict("option", answer, "B", QUESTION) is CORRECT


def test_a_number_inside_another_names_no_option():
    assert verdict("option", "The result is 15", "A", "Which?\nA. 5\nB. 7") is INCORRECT


def test_what_the_reference_does_not_have_is_not_equal_to_nothing():
    assert verdict(JsonCheck(json_fields=("amuont",)), '{"amount": 5}', '{"amount": 7}') is UNJUDGED
    either = RegexCheck(regex=r"Answer: (\d+)|Result: (\d+)")
    assert verdict(either, "Result: 5", "Result: 7") is INCORRECT
    assert verdict(either, "Result: 7", "Answer: 7") is CORRECT
    assert verdict(RegexCheck(regex=r"\d*"), "x", "y") is UNJUDGED


def test_punctuation_that_means_something_is_kept():
    assert verdict("exact", ".5", "5") is INCORRECT
    assert verdict("exact", "!", "?") is INCORRECT
    assert verdict("math", "5!", "5") is INCORRECT
    assert verdict("math", "the total is 5 apples", "5") is CORRECT


@pytest.mark.parametrize("place", ["{folder}/changed/mine.py", "changed.mine"])
def test_a_changed_function_is_another_check(tmp_path, monkeypatch, place):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "changed" / "mine.py"
    file.parent.mkdir()
    function = FunctionCheck(function=place.format(folder=tmp_path) + ":same")
    source = SourceConfig(adapter="gsm8k", path="x.jsonl", answer_check=function)
    checks = []
    for body in ("return True", "return False"):
        file.write_text(f"def same(answer, reference, question):\n    {body}\n")
        checks.append(choose_checks([source], CONTRACT, EvaluationConfig())["gsm8k/train"]["answer"])
    assert checks[0] != checks[1]


def test_where_a_functions_file_lies_decides_nothing():
    """A job finds it in another folder each time."""
    one, moved = ({"function": f"{folder}/mine.py:same", "digest": "ab"} for folder in ("/one/place", "/another"))
    assert without_folders({"a": [one, "exact"]}) == without_folders({"a": [moved, "exact"]})
    assert without_folders(one) != without_folders(one | {"digest": "cd"})
    unknown = {"function": "package.module:same", "digest": ""}
    assert without_folders([unknown, {"labels": ["a/b", "c"]}]) == [unknown, {"labels": ["a/b", "c"]}]


@pytest.mark.parametrize("line", CASES.read_text(encoding="utf-8").splitlines())
def test_inputs_that_were_once_read_wrongly(line):
    case = json.loads(line)
    check = make_check(TypeAdapter(AnswerCheck).validate_python(case["check"]))
    judgement = check(Case(case["answer"], case["reference"], case["question"]))
    if case["expected"] == "not certain":
        assert not judgement.certain
    else:
        assert judgement.verdict == case["expected"]
    if case["expected"] == "incorrect":  # the other way round as well, wherever both can be read
        other_way = check(Case(case["reference"], case["answer"], case["question"])).verdict
        assert other_way is not CORRECT or case["check"] == "exact"


@pytest.mark.parametrize("check", ["numeric", "math"])
@pytest.mark.parametrize(
    "conclusion",
    ["She has 42 pens left.\n\nLet me know if you have any questions!", "Therefore\n$$\nx = 42\n$$", "Hence $x = 42$."],
)
def test_a_long_text_is_read_from_its_end(check, conclusion):
    answer = " ".join(["We get 7 first.", *["This sentence says nothing about the result."] * 60, conclusion])
    assert [verdict(check, answer, reference) for reference in ("7", "42")] == [INCORRECT, CORRECT]


def test_of_many_numbers_the_last_ones_are_tried():
    answer = " ".join([f"He saw bird {i} at noon." for i in range(59)] + ["In the end there were 99 birds."])
    assert verdict("numeric", answer, "99") is CORRECT


def test_an_answer_cannot_make_itself_unjudged():
    for answer in ("10^{10^{10}}", "(10^{10})!", "\\frac{1}{0}", "((((", "\\unknown{x}", "\x00", "0xZZ", "9" * 5000):
        for check in ("math", "numeric", "option", "json", "exact"):
            reference = {"option": "B", "json": '{"a": 5}'}.get(check, "5")
            assert verdict(check, answer, reference, QUESTION) is INCORRECT, (check, answer)


@pytest.mark.parametrize(
    ("check", "reference", "reason"),
    [
        ("numeric", "see the figure", "holds no number"),
        ("numeric", "Ann has 3 apples and Bob ate 4 of his pears", "several readings"),
        ("option", "none of these", "names no option"),
        ("json", "yes", "is not JSON"),
        (RegexCheck(regex=r"#(\d+)"), "17", "regular expression"),
        (LabelCheck(labels=("yes", "no")), "maybe", "none of the labels"),
    ],
)
def test_whether_an_answer_can_be_judged_is_decided_by_its_reference_alone(check, reference, reason):
    checked = make_check(check)
    assert reason in checked.problem_with(reference, QUESTION)
    for answer in (reference, "B", "17", "yes", ""):
        assert checked(Case(answer, reference, QUESTION)).verdict is UNJUDGED


def test_a_regular_expression_that_takes_for_ever_costs_one_answer():
    check = make_check(RegexCheck(regex=r"([A-Za-z]+\s*)+\."))
    assert check(Case("a" * 60 + "!", "Yes.")).verdict is INCORRECT
    assert check(Case("yes.", "Yes.")).verdict is CORRECT


@pytest.mark.parametrize(
    ("check", "reference", "answer"),
    [
        *(
            ("numeric", "5", f"5 {words}")
            for words in ("(wrong)", "(-5)", "squared", "tenths", "would be wrong", "kids")
        ),
        *(
            ("numeric", "5", f"5 {words}")
            for words in ("Milliarden", "factorial", "below zero", "at least", "negative")
        ),
        ("numeric", "12 (base 8)", "12 (base 10)"),
        ("numeric", "5 mPa", "5 MPa"),
        ("numeric", "5 Nm", "5 nm"),
        ("numeric", "12 children", "12 kids"),
        ("numeric", "1000", "1.000"),
        ("json", '{"a": "__init__"}', '{"a": "init"}'),
        ("json", '{"a": "5"}', '{"a": 5}'),
        ("exact", "mW", "MW"),
        ("exact", '"a" or "b"', 'a" or "b'),
        ("tool_call", '{"name": "f", "arguments": {"path": "/Data"}}', '{"name": "f", "arguments": {"path": "/data"}}'),
    ],
)
def test_what_a_judge_might_see_otherwise_is_not_certain(check, reference, answer):
    assert not make_check(check)(Case(answer, reference)).certain


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ("math", r"\sin(9^{9^9})"),
        ("math", r"\gcd(9^{9^9}, 3)"),
        ("math", "z!!!!!!!!!"),
        ("math", "3^{100100}!"),
        ("math", r"\lfloor 2^{2^{39}} \rfloor"),
        ("numeric", "[" * 36 + "50-60 km/h"),
        ("math", r"\{" * 18 + "5," + r"\}" * 18),
        ("math", "a(" * 18 + "1+b" + ")" * 18),
        ("math", r"1\frac{" * 18 + "x" + "}{2}" * 18),
        ("numeric", "so " + "(1+1+1+1 " * 100),
        ("numeric", "5" + ".1" * 999),
        ("numeric", "1 \u2780/\u2781"),
        ("option", "(" * 2000),
        ("option", "B " * 3000),
        ("option", "A" + " " * 3000 + "B"),
        ("json", "[" * 500 + "]" * 500),
    ],
)
def test_what_grows_without_bound_is_wrong_soon(check, answer):
    reference = {"option": "C", "json": "[1]"}.get(check, "5")
    started = time.process_time()
    assert verdict(check, answer, reference, QUESTION) is INCORRECT
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "answer",
    ["half of 5", "a third of 5", "5 at least", "2 in 5", "5 score", "5 M", "5 (negative)", "5 (or 6)", "5 (not sure)"],
)
def test_words_beside_a_number_that_make_another_of_it_are_not_passed_over(answer):
    assert verdict("numeric", answer, "5") is INCORRECT
    assert verdict("numeric", answer, "2") is INCORRECT


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("5 score", "100"),
        ("5 M", "5,000,000"),
        ("We sold 5 in 2 days.", "5"),
        ("5 (five)", "5"),
        ("5 of them", "5"),
        ("300 K", "300 K"),
    ],
)
def test_words_beside_a_number_that_leave_it_are(answer, reference):
    assert verdict("numeric", answer, reference) is CORRECT


@pytest.mark.parametrize("answer", ["(B).no", "not B", "A or B", "B. dog"])
def test_spaces_around_an_option_change_nothing(answer):
    assert verdict("option", answer, "B", QUESTION) is verdict("option", f"  {answer} \n", "B", QUESTION)


@pytest.mark.parametrize(
    ("settings", "answers", "expected"),
    [
        ("numeric", ["42", "$42.00", "7", "forty-two things", "none", "None.", ""], [0, 0, 2, 0, 4, 4, 6]),
        ("math", ["1/2", r"\frac{1}{2}", "0.5", "x"], [0, 0, 0, 3]),
        ("option", ["(B)", "the answer is B", "A"], [0, 0, 2]),
        (LabelCheck(labels=("approve", "decline")), ["approve", "Approve.", "perhaps"], [0, 0, 2]),
        ("exact", ["a", "A.", "b"], [0, 0, 2]),
        ("json", ['{"a": 1}', '{ "a": 1.0 }', "no", "no"], [0, 0, 2, 2]),
    ],
)
def test_the_check_decides_which_answers_to_a_question_are_the_same(settings, answers, expected):
    assert first_same(make_check(settings), answers, "Which? (A) one (B) two") == expected


def test_a_users_function_is_asked_about_references_alone(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def check(answer, reference, question):\n    raise SystemExit\n")
    check = make_check(FunctionCheck(function=f"{file}:check"))
    assert first_same(check, ["a", "A.", "b"], "") == [0, 0, 2]


def test_a_check_that_fails_on_answers_compares_their_texts():
    def fails(*_):
        raise RecursionError

    check = make_check("numeric")
    assert first_same(replace(check, read=fails), ["1", "1.0", "1"], "") == [0, 1, 0]
    assert first_same(replace(check, compare=fails), ["1", "1.0", "1"], "") == [0, 1, 0]


def test_the_checks_of_a_run_are_told_in_words():
    checks = {
        "mine/test": {"decision": LabelCheck(labels=("approve", "reject")), "amount": "numeric"},
        "other/test": {
            "decision": FunctionCheck(function="/a/folder/mine.py:same"),
            "amount": RegexCheck(regex=r"\d+"),
            "order": JsonCheck(json_fields=("id", "item.name")),
        },
    }
    assert checks_in_words(checks) == (
        "answer checks: mine/test compares decision as a label (approve, reject), amount as a number; other/test "
        r"compares decision by the function mine.py:same, amount by what '\\d+' finds, order by its JSON fields (id, "
        "item.name)"
    )


@pytest.mark.parametrize("name", [name for name in get_args(CheckName) if name not in ("auto", "label")])
def test_every_check_that_is_chosen_has_words(name):
    """`auto` and `label` are resolved before."""
    assert checks_in_words({"mine/test": {"answer": name}}).startswith("answer checks: mine/test compares answer ")
