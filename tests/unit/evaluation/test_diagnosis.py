"""Every sign is found where it is and not where it is not."""

from dataclasses import replace

from sftkey_dist.evaluation.diagnosis import StageCurves, UselessStage, diagnose
from sftkey_dist.evaluation.diagnosis.signs import copied_share, is_looping
from sftkey_dist.run_dir.artifacts.training import GuardScores, GuardSummary, HeldOutMetrics
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


def curves(reasoning=(0.5, 0.5), answer=0.5, guard=(), continues=True, scores=(), held_out=()):
    """Of a stage on the answer; ``guard`` has its formats, ``scores`` its scores, which are otherwise the same.

    ``held_out`` has the answer's nll of held-out examples.
    """
    steps = [
        step_metrics(i, segments={"reasoning": nll(value, 10), "answer": nll(answer, 2)})
        for i, value in enumerate([reasoning[0]] * 10 + [reasoning[1]] * 10)
    ]
    return StageCurves(
        "key",
        continues,
        frozenset({"answer"}),
        steps,
        [
            GuardScores(n=20, accuracy=0.5, format=format_share, score=score)
            for format_share, score in zip(guard, scores or [0.5] * len(guard), strict=True)
        ],
        has_trained_whole=continues,
        held_out=[HeldOutMetrics(value, {"answer": nll(value, 2)}) for value in held_out],
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
    assert set(found) == {"repeats_itself", "cut_off", "copies_the_prompt"}, "each output has one cause"


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
    assert "reasoning_is_the_limit" in kinds(wrong, curves(held_out=[0.2, 0.01]))
    assert "reasoning_is_the_limit" not in kinds(records, curves(held_out=[0.01]))
    assert "reasoning_is_the_limit" not in kinds(wrong, curves(answer=0.01)), "trained rows may be known by heart"
    assert "reasoning_is_the_limit" not in kinds(wrong, curves(answer=0.01, held_out=[1.1, 7.1]))
    looping = [record(i, "incorrect", keeps=False, output="and then " * 40) for i in range(10)]
    assert "reasoning_is_the_limit" not in kinds(looping, curves(held_out=[0.01]))


def test_a_stage_that_learns_its_rows_by_heart_is_told_by_held_out_ones():
    wrong = [record(i, verdict="incorrect") for i in range(10)]
    found = kinds(wrong, curves(answer=0.01, held_out=[1.4, 1.15, 1.3, 1.54]))
    assert "answer 1.150 -> 1.540): it learns the training rows by heart" in found["last_stage_overfits"].sentence
    assert "fewer epochs" in found["last_stage_overfits"].remedy
    assert "more epochs" not in found["right_structure_wrong_answer"].remedy
    assert "last_stage_overfits" not in kinds(wrong, curves(answer=0.01, held_out=[1.4, 1.15, 1.18]))
    assert "last_stage_overfits" not in kinds(wrong, curves(answer=4.0, held_out=[1.0, 1.1, 4.2])), "it diverges"


def test_a_remedy_is_not_what_the_strategy_has_done_already():
    lost = [record(i, "incorrect", keeps=False, answer_source={"answer": "whole"}) for i in range(4)]
    wrong = [record(i, "incorrect") for i in range(4)]
    tagged = replace(curves(continues=False), has_trained_whole=True)
    assert "sft-tag" in kinds(lost)["no_answer_found"].remedy
    assert "optimization.learning_rate" in kinds(lost, tagged)["no_answer_found"].remedy
    assert "the strategy that ends before" in kinds(lost, curves())["no_answer_found"].remedy
    for found in (kinds(lost, tagged), kinds(lost, curves()), kinds(wrong, curves())):
        assert not any("sft-tag" in finding.remedy or "sftkey-tag" in finding.remedy for finding in found.values())
    limited = kinds(wrong, curves(held_out=[0.01]))
    assert "more training of the answer will not help" in limited["reasoning_is_the_limit"].remedy
    assert "num_epochs" not in limited["right_structure_wrong_answer"].remedy


def test_a_complete_output_that_ends_in_equal_digits_does_not_repeat_itself():
    records = [record(i, output="so it is 0.3333333333") for i in range(20)]
    assert not kinds(records)


def test_an_optional_answer_that_is_absent_from_the_reference_is_not_missing():
    reference = {"reasoning": "12 + 5 = 17", "answer": ""}
    records = [record(i, reference=reference, answer="", answer_source={"answer": "whole"}) for i in range(20)]
    assert "no_answer_found" not in kinds(records)


def one_bad_output():
    """One output of 48 that repeats itself, is cut off, has no answer and breaks the contract."""
    looping = "and then " * 40
    bad = record(0, "incorrect", keeps=False, output=looping, truncated=True, answer_source={"answer": "whole"})
    return [bad, *(record(i) for i in range(1, 48))]


KEPT_START = GuardSummary(kept_step=0, kept_score=0.95, first_score=0.95, last_score=0.9, evaluations=5)


def test_a_bad_output_is_one_finding_with_one_remedy():
    (found,) = diagnose(one_bad_output(), None)
    assert (found.kind, found.count) == ("repeats_itself", 1)
    (found,) = diagnose(one_bad_output(), replace(curves(continues=False), has_trained_whole=True))
    assert "num_epochs" in found.remedy
    assert not any(word in found.remedy for word in ("first", "lower", "key-tag"))


def test_remedies_do_not_contradict_a_stage_that_has_learned_its_rows_by_heart():
    first = replace(curves(answer=0.01, held_out=[1.4, 1.15, 1.54], continues=False), has_trained_whole=True)
    found = diagnose(one_bad_output(), first)
    assert {finding.kind for finding in found} == {"repeats_itself", "last_stage_overfits"}
    for finding in found:
        assert not any(words in finding.remedy for words in ("raise optimization", "more epochs", "guard"))


def test_no_wrong_output_is_left_out_and_no_example_named_twice():
    broken = [replace(record(0, verdict="incorrect", keeps=False), sample=sample) for sample in range(3)]
    found = kinds([*(record(i) for i in range(1, 9)), *broken])
    assert (found["wrong_otherwise"].count, found["wrong_otherwise"].examples) == (3, ("t:0",))


def test_a_contradiction_is_not_also_a_wrong_answer():
    wrong = record(9, verdict="incorrect", reasoning="12 + 5 = 17", answer="18")
    found = kinds([*(record(i) for i in range(9)), wrong])
    assert list(found) == ["reasoning_contradicts_answer"]


def test_a_stage_whose_guard_kept_its_start_is_no_cause_and_no_remedy():
    """The curves are those of the stage before, which trained the whole response."""
    before = replace(curves(continues=False), name="full", has_trained_whole=True)
    strategy = replace(before, useless=[UselessStage("key", 120, KEPT_START)])
    found = kinds([record(i, "incorrect" if i < 5 else "correct") for i in range(48)], strategy)
    assert list(found) == ["right_structure_wrong_answer", "stage_gained_nothing"]
    assert "sftkey-tag" not in found["right_structure_wrong_answer"].remedy
    assert "what came of stage key" in found["right_structure_wrong_answer"].remedy
    gained = found["stage_gained_nothing"]
    assert "the model before stage key, whose guard kept the model that the stage began with" in gained.sentence
    assert gained.remedy.startswith("lower the learning rate of stage key; more held-out examples")
    assert not any("use validation.guard" in finding.remedy for finding in found.values())
    harmless = replace(KEPT_START, last_score=0.95)
    (gained,) = diagnose([record(0)], replace(before, useless=[UselessStage("key", 120, harmless)]))
    assert gained.remedy.startswith("nothing was lost either")
    perfect = replace(KEPT_START, first_score=1.0, last_score=1.0)
    (gained,) = diagnose([record(0)], replace(before, useless=[UselessStage("key", 120, perfect)]))
    assert gained.remedy.startswith("the score could not rise any more")
    (rounded,) = diagnose([record(0)], replace(before, useless=[UselessStage("key", 120, None)]))
    assert "changed no stored weight" in rounded.sentence
    assert "training.export_precision=float32" in rounded.remedy


def test_what_the_guard_has_done_is_not_advised_again():
    drifting, falling = {"reasoning": (0.5, 0.8)}, (1.0, 0.6)
    for guard, scores, advice in (
        ((), (), "use validation.guard"),
        (falling, (0.5, 0.4), "validation.guard.keep=best"),
        (falling, (0.4, 0.5), ""),
    ):
        found = kinds([record(i) for i in range(10)], curves(**drifting, guard=guard, scores=scores))
        remedies = [finding.remedy for finding in found.values()]
        assert len(remedies) == 1 + bool(guard)
        assert all((advice or "lower") in remedy for remedy in remedies)
        assert all(bool(advice) == ("validation.guard" in remedy) for remedy in remedies)


def test_remedies_do_not_contradict_each_other():
    wrong = [record(i, "incorrect") for i in range(10)]
    found = kinds(wrong, curves(reasoning=(0.5, 0.8)))
    assert "lower the learning rate" in found["last_stage_drifts"].remedy
    assert "epochs" not in found["right_structure_wrong_answer"].remedy
    cut = [record(i, truncated=True) for i in range(10)]
    assert "key_stage.end_of_turn=true" in kinds(cut, curves())["cut_off"].remedy
    ends = replace(curves(), trained=frozenset({"answer", "end_of_turn"}))
    assert "end_of_turn" not in kinds(cut, ends)["cut_off"].remedy
    broken = [record(i, keeps=False) for i in range(10)]
    assert "key_stage.tags=true" in kinds(broken, curves())["right_answer_broken_structure"].remedy
    tags = replace(curves(), trained=frozenset({"answer", "answer.open"}))
    assert "key_stage.tags" not in kinds(broken, tags)["right_answer_broken_structure"].remedy
