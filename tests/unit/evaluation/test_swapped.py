"""Swapped reasoning: who is paired, what exactly stands before an answer, and what the answer agrees with."""

import json
import math
import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract, Segment
from sftkey_dist.data.encoding.encode import ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.judging import scoring_digest
from sftkey_dist.evaluation.review import read_labels
from sftkey_dist.evaluation.swapped import beginning as beginning_module
from sftkey_dist.evaluation.swapped import measure as measure_module
from sftkey_dist.evaluation.swapped.beginning import Beginning, with_generated, with_references
from sftkey_dist.evaluation.swapped.completion import PrefixEncoder, complete
from sftkey_dist.evaluation.swapped.measure import SwapMeasurement, is_swap_measured
from sftkey_dist.evaluation.swapped.paired import compare_swaps
from sftkey_dist.evaluation.swapped.pairing import Pair, choose_pairs
from sftkey_dist.evaluation.swapped.summary import SwapShares
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir import EvaluationDir
from sftkey_dist.run_dir.artifacts.evaluation import GENERATIONS, GenerationRecord
from sftkey_dist.run_dir.artifacts.swapped import (
    CONTINUATIONS,
    SWAPPED,
    ContinuationRecord,
    Outcome,
    Reasoning,
    SwappedReasoning,
)
from tests.finished_run import swapped
from tests.unit.data.test_thinking import ALWAYS, NATIVE, tokenizer_ending_with

JSON = ResponseContract(container="json")
PLAIN = ResponseContract(container="plain", delimiter="\nSo: ")
CALLS = ResponseContract(
    segments=(
        Segment(name="reasoning"),
        Segment(name="tool_call", key=True, required=False, value="tool_call", delimiter="\nCall: "),
        Segment(name="answer", key=True, required=False, delimiter="\nAnswer: "),
    ),
)


def example(number: int, answer: str, data_set: str = "memos", **values: str) -> Example:
    texts = {"reasoning": f"It is {number}, so {answer}.", "answer": answer} | values
    return Example(f"q{number}", f"Case {number}?", texts, data_set=data_set)


def job(contract=None, form=Form.TAGGED, check="exact", number=8, model_dir="", **settings) -> EvaluationJob:
    contract = contract or ResponseContract()
    checks = {name: {segment.name: check for segment in contract.key_segments} for name in ("memos", "other")}
    config = EvaluationConfig(swapped_reasoning=number, max_new_tokens=8, batch_size=4, **settings)
    return EvaluationJob(form, contract, PromptConfig(), config, checks, 0, False, model_dir=model_dir, strategy="sft")


def ids_of(pairs) -> set[tuple[str, str]]:
    return {(pair.question.id, pair.donor.id) for pair in pairs.pairs}


def test_pairs_are_the_same_for_all_strategies_and_have_different_answers():
    examples = [example(number, ("yes", "no", "Yes ")[number % 3]) for number in range(30)]
    found = choose_pairs(examples, 10, job())
    shuffled = random.Random(0).sample(examples, len(examples))
    assert ids_of(choose_pairs(shuffled, 10, job(JSON))) == ids_of(found)
    assert len(found.pairs) == len({pair.question.id for pair in found.pairs}) == 10
    for pair in found.pairs:
        assert {pair.question.values["answer"].lower().strip(), pair.donor.values["answer"].lower().strip()} == {
            "yes",
            "no",
        }
    assert ids_of(found) < ids_of(choose_pairs(examples, 20, job())), "more questions keep those that were asked"
    numbers = [example(0, "5"), example(1, "5.0"), example(2, "7")]
    by_value = {pair.question.id: pair.donor.id for pair in choose_pairs(numbers, 3, job(check="numeric")).pairs}
    assert {by_value["q0"], by_value["q1"]} == {"q2"}, "the check says what differs"


@pytest.mark.parametrize(
    ("number", "rare", "asked", "most"), [(1000, 10, 200, 20), (400, 200, 200, 2), (90, 30, 90, 3)]
)
def test_every_possible_donor_is_used_before_one_is_used_again(number, rare, asked, most):
    examples = [example(n, "no" if n < rare else "yes") for n in range(number)]
    pairs = choose_pairs(examples, asked, job()).pairs
    uses = Counter(pair.donor.id for pair in pairs)
    of_rare = [uses[f"q{n}"] for n in range(rare)]
    with_rare = sum(pair.question.values["answer"] == "yes" for pair in pairs)
    assert sum(of_rare) == with_rare
    assert max(of_rare) <= most
    assert max(of_rare) - min(of_rare) <= 2
    assert len(uses) >= min(asked, rare) * 0.9


def test_many_equal_answers_are_passed_over_in_one_step_and_tries_end():
    examples = [example(n, "no" if n == 5 else "yes") for n in range(20_000)]
    started = time.process_time()
    pairs = choose_pairs(examples, 500, job()).pairs
    assert {pair.donor.id for pair in pairs if pair.question.id != "q5"} == {"q5"}
    assert choose_pairs([e for e in examples if e.id != "q5"], 500, job()).left_out == {"no_donor": 19_999}
    assert time.process_time() - started < 10, "20,000 times 500 comparisons would take longer"
    spelled = [example(n, f"{n}.0" if n % 2 else f"{n - 1}") for n in (1, 2)]
    assert choose_pairs(spelled, 2, job(check="numeric")).left_out == {"no_donor": 2}, "1.0 and 1"


def test_a_donor_is_found_where_most_answers_are_other_spellings_of_the_same():
    examples = [example(n, "7" if n % 10 == 0 else f"5.{'0' * n}") for n in range(100)]
    found = choose_pairs(examples, 100, job(check="numeric"))
    assert found.left_out == {}
    assert {float(pair.question.values["answer"]) + float(pair.donor.values["answer"]) for pair in found.pairs} == {12}


def test_who_has_no_donor_is_counted_by_reason():
    same = [example(number, "yes") for number in range(3)]
    assert choose_pairs(same, 3, job()).left_out == {"no_donor": 3}
    elsewhere = [*same, example(9, "no", data_set="other")]
    assert choose_pairs(elsewhere, 3, job()).left_out == {"no_donor": 4}, "donors are of the same test set"
    contract = ResponseContract(segments=(Segment(name="reasoning", required=False), Segment(name="answer", key=True)))
    odd = [*same, example(4, "no"), example(5, "no", reasoning=" "), example(6, " ")]
    found = choose_pairs(odd, 6, job(contract))
    assert found.left_out == {"no_reasoning": 1, "no_answer": 1}
    assert {donor for _, donor in ids_of(found)} <= {"q0", "q1", "q2", "q4"}
    call = Example("call", "Case?", {"reasoning": "I ask.", "tool_call": '{"name": "price"}'}, data_set="memos")
    assert choose_pairs([call, example(1, "no"), example(2, "yes")], 3, job(CALLS)).left_out == {"no_donor": 1}, (
        "an answer is no donor for a call of a tool"
    )


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(
    ("written", "end"),
    [(ResponseContract(), ""), (JSON, ""), (PLAIN, ""), (NATIVE, ""), (NATIVE, ALWAYS), (CALLS, "")],
)
def test_what_stands_before_an_answer_are_the_ids_of_training(tokenizer, written, end, form):
    """A prompt as one example is trained on it, and reasoning as another one is."""
    tokenizer = tokenizer_ending_with(tokenizer, end)
    prompts = PromptEncoder(tokenizer, PromptConfig())
    examples = [example(7, "approve"), example(31, "reject", reasoning='Debt is "high"\nso it is.')]
    trained = ExampleEncoder(tokenizer, prompts, written, form, 512).encode(examples)
    key = written.segment_names.index("answer")
    starts = [item.segment_ids.index(key) for item in trained]
    prompt_ends = [item.segment_ids.count(written.segment_names.index("prompt")) for item in trained]
    own, other = with_references(Pair(*examples), job(written, form))
    found = PrefixEncoder(tokenizer, prompts, written, form).encode([own.example, other.example])
    question, donor = trained
    assert found[0] == question.input_ids[: starts[0]]
    assert found[1] == [*question.input_ids[: prompt_ends[0]], *donor.input_ids[prompt_ends[1] : starts[1]]]
    whole = "".join(piece.text for piece in written.render(examples[1].values, form))
    (prompt,) = tokenizer.batch_decode([question.input_ids[: prompt_ends[0]]])
    begun = whole[: whole.rindex("reject")]
    assert tokenizer.decode(found[1]) == prompt + begun.removeprefix(end)


def test_what_training_refuses_and_what_is_too_long_is_not_asked_and_has_the_reason(tokenizer):
    broken = example(2, "reject", reasoning="a </Thinking> within")
    settings, asked = job(), []

    class Model:
        def __init__(self, most_tokens: int | None = None) -> None:
            self.tokenizer, self.prompts = tokenizer, PromptEncoder(tokenizer, PromptConfig())
            self.most_tokens = most_tokens

        def answer(self, prompt_ids, decoding, grammars=None):
            asked.append((len(prompt_ids), decoding))
            return [[Generation("approve</Answer>", 3, False)] for _ in prompt_ids]

    records = complete(Model(), with_references(Pair(example(1, "approve"), broken), settings), settings)
    assert [(record.refusal, record.generation is None) for record in records] == [
        ("", False),
        ("delimiter_in_text", True),
    ]
    ((number, decoding),) = asked
    assert (number, decoding.num_samples, decoding.temperature, decoding.guide) == (1, 1, 0.0, None)
    sampled = job(guided=True, sampling={"num_samples": 3, "temperature": 1.0})
    complete(Model(), [Beginning.of(Reasoning.OWN, broken, broken, "", sampled)], sampled)
    assert len(asked) == 1, "nothing is left to ask"
    complete(Model(), with_references(Pair(example(1, "approve"), example(2, "no")), sampled), sampled)
    assert asked[-1] == (2, decoding), "greedy and free, however the evaluation decodes"
    pair = Pair(example(1, "approve"), example(2, "no", reasoning="It is " + "long, " * 20))
    own, other = with_references(pair, settings)
    prefixes = PrefixEncoder(tokenizer, Model().prompts, settings.contract, settings.form)
    lengths = [len(prefix) for prefix in prefixes.encode([own.example, other.example])]
    assert lengths[0] < lengths[1]
    for most, refusal in ((lengths[1] + 8, ""), (lengths[1] + 7, "too_long")):
        records = complete(Model(most), [own, other], settings)
        assert [record.refusal for record in records] == ["", refusal], "the answer has 8 tokens of the positions"


@pytest.mark.parametrize(
    ("written", "form", "end"),
    [
        (ResponseContract(), Form.TAGGED, "</Answer>"),
        (ResponseContract(), Form.UNTAGGED, ""),
        (JSON, Form.TAGGED, '"}'),
        (PLAIN, Form.TAGGED, ""),
        (NATIVE, Form.TAGGED, ""),
    ],
)
def test_an_answer_follows_the_reasoning_or_keeps_to_the_prompt(written, form, end):
    pair, settings = Pair(example(1, "approve"), example(2, "reject")), job(written, form)
    own, other = with_references(pair, settings)

    def outcome(text: str) -> Outcome:
        return other.outcome(Generation(text, 1, False), settings)

    assert outcome("reject" + end) is Outcome.FOLLOWS
    assert outcome("approve" + end) is Outcome.KEEPS
    assert outcome("review" + end) is outcome(end) is Outcome.NEITHER
    assert own.verdict(Generation("approve" + end, 1, False), settings) is Verdict.CORRECT
    assert own.verdict(Generation("reject" + end, 1, False), settings) is Verdict.INCORRECT


def test_letters_of_options_are_those_of_the_question_that_they_belong_to():
    question = replace(example(1, "B"), prompt="Which?\n(A) red\n(B) blue")
    donor = replace(example(2, "green"), prompt="Which?\n(A) green\n(B) black")
    settings = job(check="option")
    _, other = with_references(Pair(question, donor), settings)
    found = [other.outcome(Generation(f"{text}</Answer>", 1, False), settings) for text in ("A", "green", "B")]
    assert found == [Outcome.FOLLOWS, Outcome.FOLLOWS, Outcome.KEEPS]


def tagged(reasoning: str, answer: str) -> str:
    return f"<Thinking>{reasoning}</Thinking><Answer>{answer}</Answer>"


def test_the_models_own_reasoning_takes_the_place_of_references():
    pair, settings = Pair(example(1, "approve"), example(2, "reject")), job()

    def generated(question: str, donor: str) -> Beginning | str:
        return with_generated(pair, {("memos", "q1"): question, ("memos", "q2"): donor}, settings)

    found = generated(tagged("own", "review"), tagged("mine", "maybe"))
    assert found.example == replace(pair.question, values={"reasoning": "mine", "answer": "maybe"})
    outcomes = [found.outcome(Generation(f"{text}</Answer>", 1, False), settings) for text in ("maybe", "review", "no")]
    assert outcomes == [Outcome.FOLLOWS, Outcome.KEEPS, Outcome.NEITHER]
    assert generated("review", tagged("mine", "maybe")) == "broken_format"
    assert generated(tagged("own", "no"), tagged("mine", "No")) == "same_answer"


def test_reasoning_before_a_call_says_nothing_about_a_question_with_an_answer():
    """The mark before the call would make every model follow."""
    settings = job(CALLS)
    call, answer = (
        "".join(piece.text for piece in CALLS.render({"reasoning": "I see."} | of_key, Form.TAGGED))
        for of_key in ({"tool_call": '{"name": "price"}'}, {"answer": "5"})
    )
    pair = Pair(example(1, "5"), example(2, "6"))
    for question, donor in ((answer, call), (call, answer)):
        outputs = {("memos", "q1"): question, ("memos", "q2"): donor}
        assert with_generated(pair, outputs, settings) == "other_segments"


class Pool:
    """In place of actors: a model that makes each answer from the reasoning before it."""

    def __init__(self, refuses: str | None = None) -> None:
        self.batches, self.refuses = [], refuses
        self.complete = self

    def results(self, call, chunks):
        return (call(self, chunk) for chunk in chunks)

    def remote(self, of_job, beginnings):
        self.batches.append(list(beginnings))
        return [self.record(beginning) for beginning in beginnings]

    @property
    def asked(self):
        return [beginning for batch in self.batches for beginning in batch]

    def record(self, beginning):
        if self.refuses in (beginning.source.id, "all"):
            return ContinuationRecord(*beginning.key, generation=None, refusal="not_reproduced")
        return ContinuationRecord(
            *beginning.key, generation=Generation(f"{beginning.source.values['answer']}</Answer>", 2, False)
        )


@pytest.fixture
def examples() -> list[Example]:
    return [example(number, ("yes", "no")[number % 2]) for number in range(12)]


@pytest.fixture
def folder(tmp_path, examples):
    outputs = [tagged("so", "yes" if number < 6 else "no") for number in range(12)]
    GENERATIONS.append(
        tmp_path / "generations.jsonl",
        [
            GenerationRecord(e.data_set, e.id, (Generation(t, 4, False),))
            for e, t in zip(examples, outputs, strict=True)
        ],
    )
    return tmp_path


def measurement_of(examples, folder, settings) -> SwapMeasurement:
    pairs = choose_pairs(examples, settings.settings.swapped_reasoning, settings)
    return SwapMeasurement(settings, examples, folder, pairs)


def measure(examples, folder, pool, number=8, **settings) -> SwappedReasoning:
    wanted = job(number=number, **settings)
    measurement = measurement_of(examples, folder, wanted)
    done: list[int] = []
    measurement.generate(pool, done.append)
    assert done[-1] == measurement.num_answers
    assert measurement.is_answered
    assert not is_swap_measured(wanted, examples, folder)
    found = measurement.score()
    assert is_swap_measured(wanted, examples, folder)
    assert SWAPPED.read(EvaluationDir(folder).swapped_reasoning) == found
    return found


def test_a_model_that_reads_its_reasoning_follows_it_and_nothing_is_asked_twice(examples, folder):
    pool = Pool()
    found = measure(examples, folder, pool)
    shares = SwapShares.of(found)
    assert (shares.right.n, shares.right.value, shares.follows.value, shares.keeps.value) == (8, 1.0, 1.0, 0.0)
    assert shares.num_donors == len({record.donor for record in found.records})
    pairs = ids_of(choose_pairs(examples, 8, job()))
    carried = sum((int(question[1:]) < 6) != (int(donor[1:]) < 6) for question, donor in pairs)
    assert 0 < carried < 8
    assert (shares.carries.n, shares.carries.value) == (carried, 1.0)
    assert shares.without_generated == {"same_answer": 8 - carried}
    assert len(pool.asked) == 16 + carried

    more = Pool()
    assert len(measure(examples, folder, more, number=10).records) == 10
    added = [beginning for beginning in more.asked if beginning not in pool.asked]
    assert {beginning.question.id for beginning in added} == {
        record.id for record in SWAPPED.read(EvaluationDir(folder).swapped_reasoning).records
    } - {record.id for record in found.records}
    assert len(more.asked) - len(added) < 4, "only the rest of a batch of four is asked again"
    lines = CONTINUATIONS.read(folder / "swapped_reasoning.jsonl")
    assert len({line.key for line in lines}) == len(lines)
    none = Pool()
    measure([*examples[:1], *examples[1:]], folder, none, number=9)
    assert none.asked == []


def test_a_measurement_that_was_cut_off_asks_the_same_batches_again_and_finds_the_same(examples, folder):
    whole, journal = Pool(), folder / "swapped_reasoning.jsonl"
    found = measure(examples, folder, whole)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:6]) + lines[6][:20])  # within the second batch of four
    EvaluationDir(folder).swapped_reasoning.unlink()
    rest = Pool()
    assert not measurement_of(examples, folder, job()).is_answered
    assert measure(examples, folder, rest) == found
    assert rest.batches == whole.batches[1:]
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)


def test_two_test_sets_have_batches_of_their_own(examples, folder):
    """So more questions of the first do not move those of the second."""
    twice = [*examples, *(replace(e, data_set="other") for e in examples)]
    records = GENERATIONS.read(folder / "generations.jsonl")
    GENERATIONS.append(folder / "generations.jsonl", [replace(record, data_set="other") for record in records])
    first, more = Pool(), Pool()
    assert len(measure(twice, folder, first, number=6).records) == 12
    measure(twice, folder, more, number=8)
    again = [beginning for beginning in more.asked if beginning in first.asked]
    assert len(again) < 2 * 4


@pytest.mark.parametrize("other", [{"alpha": 0.3}, {"judge": {"judges": [{"path": "judge"}]}}])
def test_what_only_scores_depend_on_changes_nothing(examples, folder, other):
    measure(examples, folder, Pool())
    assert is_swap_measured(job(**other), examples, folder)
    label = {"label": "correct", "data_set": "memos", "id": "q1", "sample": 0, "segment": "answer", "answer": "yes"}
    label |= {"reference": "no"}
    (folder / "review.jsonl").write_text(json.dumps(label) + "\n")
    labels = read_labels(folder / "review.jsonl")
    digests = [scoring_digest(*asked) for asked in ((job(), examples, {}), (job(), examples, labels))]
    assert len({*digests, scoring_digest(job(**other), examples, labels)}) == 3
    assert is_swap_measured(job(), examples, folder)
    assert not is_swap_measured(job(check="numeric"), examples, folder)
    assert measurement_of(examples, folder, job(check="exact")).is_answered


def test_another_boundary_between_reasoning_and_answer_is_continued_anew(examples, folder):
    """The folder of the evaluation is the same, because outputs do not depend on which segments are key."""

    def contract(is_key: bool) -> ResponseContract:
        reasoning, answer = ResponseContract().segments
        return ResponseContract(segments=(reasoning, Segment(name="claim", key=is_key), answer))

    with_claims = [replace(e, values=e.values | {"claim": e.values["answer"]}) for e in examples]
    after_claim, before_claim, known = Pool(), Pool(), Pool()
    measure(with_claims, folder, after_claim, contract=contract(False))
    measure(with_claims, folder, before_claim, contract=contract(True))
    assert len(after_claim.asked) == len(before_claim.asked) == 16
    measure(with_claims, folder, known, contract=contract(False))
    assert known.asked == []
    assert not measurement_of(with_claims, folder, job(contract(False), Form.UNTAGGED)).is_answered


def test_another_version_is_continued_anew(examples, folder, monkeypatch):
    first, again = Pool(), Pool()
    measure(examples, folder, first)
    for module in (beginning_module, measure_module):
        monkeypatch.setattr(module, "VERSION", 1000)
    measure(examples, folder, again)
    assert len(again.asked) == len(first.asked)


def test_another_reference_is_another_beginning(examples, folder):
    measure(examples, folder, Pool())
    changed = [replace(e, values=e.values | {"reasoning": "Otherwise."}) if e.id == "q3" else e for e in examples]
    again = Pool()
    measure(changed, folder, again)
    assert "q3" in {beginning.source.id for beginning in again.asked}
    assert len(again.asked) < 16, "the others' batches stay"


def test_what_could_not_be_encoded_is_left_out_by_reason(examples, folder):
    found = measure(examples, folder, Pool(refuses="q4"))
    assert found.left_out["not_reproduced"] == 8 - len(found.records) > 0
    assert "q4" not in {record.id for record in found.records} | {record.donor for record in found.records}


def test_where_nothing_could_be_encoded_there_is_a_result_without_shares(examples, folder):
    found = measure(examples, folder, Pool(refuses="all"))
    assert (found.records, found.left_out) == ((), {"not_reproduced": 8})
    shares = SwapShares.of(found)
    assert all(share.n == 0 and math.isnan(share.value) for share in shares.by_name.values())
    assert compare_swaps({"a": found, "b": found}) == []


def test_shares_have_wilson_intervals_and_strategies_are_tested_on_the_same_questions():
    shares = SwapShares.of(swapped("fffffkknuu"))
    wilson = binomtest(5, 8).proportion_ci(method="wilson")
    assert (shares.follows.n, shares.follows.value) == (8, 5 / 8)
    assert shares.follows.interval == pytest.approx((wilson.low, wilson.high))
    assert (shares.keeps.value, shares.neither.value) == (2 / 8, 1 / 8)
    assert shares.carries.n == 0
    assert shares.unjudged == {"donor": 2}
    first, second = "f" * 9 + "kkk", "k" * 8 + "ffku"
    tests = {test.measure: test for test in compare_swaps({"a": swapped(first), "b": swapped(second)})}
    assert set(tests) == {"right", "follows"}, "carries was not measured"
    test = tests["follows"]
    assert (test.n, test.only_first, test.only_second) == (11, 8, 1)
    assert test.difference == pytest.approx(9 / 11 - 2 / 11)
    assert test.difference_interval[0] < test.difference < test.difference_interval[1]
    exact = binomtest(1, 9).pvalue
    assert (test.p_value, test.adjusted_p_value) == pytest.approx((exact, 2 * exact))
    assert tests["right"].p_value == 1.0


def test_a_prefix_of_an_example_that_cannot_be_written_is_a_refusal(tokenizer):
    prompts = PromptEncoder(tokenizer, PromptConfig())
    (found,) = PrefixEncoder(tokenizer, prompts, ResponseContract(), Form.TAGGED).encode([example(1, "")])
    assert isinstance(found, Refusal)
