"""Every sign is found where it is and not where it is not."""

from dataclasses import replace

from sftkey_dist.evaluation.diagnosis import StageCurves, diagnose
from sftkey_dist.evaluation.diagnosis.signs import copied_share, is_looping
from sftkey_dist.run_dir.artifacts.training import GuardScores
from tests.records import nll, output_record, step_metrics

PROMPT = "A farmer has twelve cows and buys five more at the market on a rainy Monday morning, how many are there?"


def record(number=0, verdict="correct", keeps=True, output="fine", reasoning="5 + 12 = 17", answer="17", **more):
    plain = {
        "id": f"t:{number}",
        "prompt": PROMPT,
        "output": output,
        "reference": {"reasoning": "12 + 5 = 17", "answer": "17"},
        "segments": {"reasoning": reasoning, "answer": answer} if keeps else {},
        "answer": {"answer": answer},
        "answer_source": {"answer": "strict" if keeps else "lenient"},
    }
    return output_record(verdict, keeps=keeps, **plain | more)


def kinds(records, curves=None):
    return {finding.kind: finding for finding in diagnose(records, curves)}


def curves(reasoning=(0.5, 0.5), answer=0.5, guard=(), continues=True):
    steps = [
        step_metrics(i, segments={"reasoning": nll(value, 10), "answer": nll(answer, 2)})
        for i, value in enumerate([reasoning[0]] * 10 + [reasoning[1]] * 10)
    ]
    return StageCurves(
        "key",
        continues,
        frozenset({"answer"}),
        steps,
        [GuardScores(n=20, accuracy=0.5, format=f, score=0.5) for f in guard],
    )


def test_nothing_is_found_where_nothing_is_wrong():
    assert not kinds([record(i) for i in range(20)], curves())


def test_right_answers_in_broken_structure_and_wrong_ones_in_right_structure_are_told_apart():
    found = kinds([record(0, keeps=False), record(1), record(2, verdict="incorrect", answer="17")])
    assert found["right_answer_broken_structure"].count == 1
    assert found["right_structure_wrong_answer"].examples == ("t:2",)
    assert "In 1 of 3 outputs (33%)" in found["right_structure_wrong_answer"].sentence


def test_an_answer_that_the_reasoning_does_not_come_to():
    records = [record(i) for i in range(9)] + [record(9, verdict="incorrect", reasoning="12 + 5 = 17", answer="18")]
    assert kinds(records)["reasoning_contradicts_answer"].examples == ("t:9",)
    labelled = [
        record(i, reference={"reasoning": "Income is steady: approve", "answer": "approve"}, reasoning="so approve",
               answer="approve" if i else "reject")
        for i in range(10)
    ]  # fmt: skip
    assert kinds(labelled)["reasoning_contradicts_answer"].examples == ("t:0",)


SOLUTIONS = [
    ("He scored 4 in the first 20 minutes.\nSo he scored 4+5=<<4+5=9>>9 points in the 40 minutes.", "9"),
    ("The cost rises to $65.\nHe paid 170*$65=$<<170*65=11050>>11050 to fill 170 balloons.", "11,050"),
    ("She needs 8 apples.\nShe can make 16 pies of them, as 16 > 12.", "16"),
    ("Each of the two eats three.\nThey eat 2 * 3 = 6 of the 8 in 1 day", "6"),
    ("The bag has 30 sticks and costs $15.00.\nEach will cost 15/30 = $0.50", "50"),
]


def test_solutions_that_say_more_after_their_number_contradict_nothing():
    records = [
        record(i, reference={"reasoning": reasoning, "answer": answer}, reasoning=reasoning, answer=answer)
        for i, (reasoning, answer) in enumerate(SOLUTIONS * 4)
    ]
    assert not kinds(records)
    wrong = [replace(r, answer={"answer": "7"}) for r in records[:5]]
    found = kinds([*wrong, *records[5:]])["reasoning_contradicts_answer"]
    assert found.count == 4, "but for the one whose reference counts in dollars and answers in cents"


def test_a_number_before_the_last_sentence_is_no_conclusion():
    records = [record(i) for i in range(9)]
    records.append(record(9, verdict="incorrect", reasoning="There are 12 cows.\n12 + 5 = 17", answer="12.0"))
    records.append(record(10, reasoning="There are 12 cows. 12 + 5 = 17. I am sure.", answer="17.0"))
    assert kinds(records)["reasoning_contradicts_answer"].count == 1


def test_a_label_that_the_last_sentence_names_beside_another_contradicts_nothing():
    def labelled(number, reasoning, answer):
        right = "reject" if number % 3 else "approve"
        reference = {"reasoning": f"The memo says so: {right}", "answer": right}
        return record(number, reference=reference, reasoning=reasoning, answer=answer)

    records = [labelled(i, "so approve", "approve") for i in range(8)]
    records.append(labelled(8, "One may approve.\nI approve and do not reject", "approve"))
    assert "reasoning_contradicts_answer" not in kinds(records)
    records.append(labelled(9, "One may approve.\nSo I reject.", "approve"))
    assert kinds(records)["reasoning_contradicts_answer"].examples == ("t:9",)


def test_reasoning_that_never_names_the_answer_contradicts_nothing():
    records = [
        record(i, reference={"reasoning": "there are 3 cases", "answer": "17"}, reasoning="3 cases") for i in range(9)
    ]
    assert "reasoning_contradicts_answer" not in kinds(records)


def test_outputs_that_are_cut_off_loop_or_copy():
    looping = "and then " * 40
    found = kinds(
        [
            record(0, truncated=True, output=looping, verdict="incorrect", keeps=False),
            record(1, truncated=True, output="long but sensible"),
            record(2, output=PROMPT, verdict="incorrect", keeps=False, answer_source={"answer": "whole"}),
        ]
    )
    assert found["repeats_itself"].examples == ("t:0",)
    assert found["cut_off"].examples == ("t:1",)
    assert found["copies_the_prompt"].examples == ("t:2",)
    assert found["no_answer_found"].examples == ("t:2",)


def test_looping_is_a_phrase_three_times_in_a_row_not_a_list():
    assert is_looping("so it is " + "one two three four five six seven " * 3)
    assert not is_looping("1 + 1 = 2, 2 + 1 = 3, 3 + 1 = 4, 4 + 1 = 5, 5 + 1 = 6, 6 + 1 = 7")
    assert not is_looping("no no no")
    assert is_looping("well: " + "approve" * 12 + "appr")
    assert not is_looping("the answer is 1000000")
    assert copied_share(PROMPT, PROMPT) == 1.0
    assert copied_share("short", PROMPT) == 0.0


def test_metrics_show_drift_broken_format_and_reasoning_that_is_the_limit():
    records = [record(i) for i in range(10)]
    assert "reasoning 0.500 -> 0.800" in kinds(records, curves(reasoning=(0.5, 0.8)))["last_stage_drifts"].sentence
    assert "last_stage_drifts" not in kinds(records, curves(reasoning=(0.5, 0.8), continues=False))
    assert "1.00 to 0.60" in kinds(records, curves(guard=(1.0, 0.9, 0.6)))["last_stage_breaks_format"].sentence
    wrong = [record(i, verdict="incorrect") for i in range(10)]
    assert "reasoning_is_the_limit" in kinds(wrong, curves(answer=0.01))
    assert "reasoning_is_the_limit" not in kinds(records, curves(answer=0.01))


def test_a_remedy_is_not_what_the_strategy_has_done_already():
    lost = [record(i, "incorrect", keeps=False, answer_source={"answer": "whole"}) for i in range(4)]
    wrong = [record(i, "incorrect") for i in range(4)]
    tagged = replace(curves(continues=False), trained=frozenset({"answer.open", "answer"}))
    assert "sft-tag" in kinds(lost)["no_answer_found"].remedy
    assert "optimization.learning_rate" in kinds(lost, tagged)["no_answer_found"].remedy
    assert "the strategy that ends before" in kinds(lost, curves())["no_answer_found"].remedy
    for found in (kinds(lost, tagged), kinds(lost, curves()), kinds(wrong, curves())):
        assert not any("sft-tag" in finding.remedy or "sftkey-tag" in finding.remedy for finding in found.values())
    limited = kinds(wrong, curves(answer=0.01))
    assert "more training of the answer will not help" in limited["reasoning_is_the_limit"].remedy
    assert "num_epochs" not in limited["right_structure_wrong_answer"].remedy
