"""Swapped reasoning: who is paired, what exactly stands before an answer, and what the answer agrees with."""

import random
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract, Segment
from sftkey_dist.data.encode import ExampleEncoder
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.prompt import PromptEncoder
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.evaluation.swapped.beginning import Beginning, with_generated, with_references
from sftkey_dist.evaluation.swapped.completion import PrefixEncoder, complete
from sftkey_dist.evaluation.swapped.measure import SwapMeasurement, is_swap_measured, swapped_file
from sftkey_dist.evaluation.swapped.paired import compare_swaps
from sftkey_dist.evaluation.swapped.pairing import Pair, choose_pairs
from sftkey_dist.evaluation.swapped.summary import SwapShares
from sftkey_dist.evaluation.verdict import Verdict
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


def test_pairs_depend_on_ids_and_references_alone_and_have_different_answers():
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
    assert len({pair.donor.id for pair in found.pairs}) > 2, "not everybody has the same donor"
    numbers = [example(0, "5"), example(1, "5.0"), example(2, "7")]
    by_value = {pair.question.id: pair.donor.id for pair in choose_pairs(numbers, 3, job(check="numeric")).pairs}
    assert {by_value["q0"], by_value["q1"]} == {"q2"}, "the check says what differs"


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
    own, other = with_references(Pair(*examples))
    found = PrefixEncoder(tokenizer, prompts, written, form).encode([own.example, other.example])
    question, donor = trained
    assert found[0] == question.input_ids[: starts[0]]
    assert found[1] == [*question.input_ids[: prompt_ends[0]], *donor.input_ids[prompt_ends[1] : starts[1]]]
    whole = "".join(piece.text for piece in written.render(examples[1].values, form))
    (prompt,) = tokenizer.batch_decode([question.input_ids[: prompt_ends[0]]])
    begun = whole[: whole.rindex("reject")]
    assert tokenizer.decode(found[1]) == prompt + begun.removeprefix(end)


def test_what_training_refuses_is_not_asked_and_has_the_reason(tokenizer):
    broken = example(2, "reject", reasoning="a </Thinking> within")
    settings, asked = job(), []

    class Model:
        def __init__(self) -> None:
            self.tokenizer, self.prompts = tokenizer, PromptEncoder(tokenizer, PromptConfig())

        def answer(self, prompt_ids, decoding, grammars=None):
            asked.append((len(prompt_ids), decoding))
            return [[Generation("approve</Answer>", 3, False)] for _ in prompt_ids]

    records = complete(Model(), with_references(Pair(example(1, "approve"), broken)), settings)
    assert [(record.refusal, record.generation is None) for record in records] == [
        ("", False),
        ("delimiter_in_text", True),
    ]
    ((number, decoding),) = asked
    assert (number, decoding.num_samples, decoding.temperature, decoding.guide) == (1, 1, 0.0, None)
    sampled = job(guided=True, sampling={"num_samples": 3, "temperature": 1.0})
    complete(Model(), [Beginning(Reasoning.OWN, broken, broken, "")], sampled)
    assert len(asked) == 1, "nothing is left to ask"
    complete(Model(), with_references(Pair(example(1, "approve"), example(2, "no"))), sampled)
    assert asked[-1] == (2, decoding), "greedy and free, however the evaluation decodes"


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
    own, other = with_references(pair)

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
    _, other = with_references(Pair(question, donor))
    settings = job(check="option")
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


class Pool:
    """In place of actors: a model that makes each answer from the reasoning before it."""

    def __init__(self, refuses: str = "") -> None:
        self.asked, self.refuses = [], refuses
        self.complete = self

    def results(self, call, chunks):
        return (call(self, chunk) for chunk in chunks)

    def remote(self, of_job, beginnings):
        self.asked += beginnings
        return [self.record(beginning) for beginning in beginnings]

    def record(self, beginning):
        if beginning.source.id == self.refuses:
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


def measure(examples, folder, pool, number=8) -> SwappedReasoning:
    settings = job(number=number)
    measurement = SwapMeasurement(settings, examples, folder, choose_pairs(examples, number, settings))
    done: list[int] = []
    measurement.generate(pool, done.append)
    assert done[-1] == measurement.num_answers
    assert not is_swap_measured(settings, examples, folder)
    found = measurement.score()
    assert is_swap_measured(settings, examples, folder)
    assert SWAPPED.read(swapped_file(folder)) == found
    return found


def test_a_model_that_reads_its_reasoning_follows_it_and_nothing_is_asked_twice(examples, folder):
    pool = Pool()
    found = measure(examples, folder, pool)
    shares = SwapShares.of(found)
    assert (shares.right.n, shares.right.value, shares.follows.value, shares.keeps.value) == (8, 1.0, 1.0, 0.0)
    pairs = ids_of(choose_pairs(examples, 8, job()))
    carried = sum((int(question[1:]) < 6) != (int(donor[1:]) < 6) for question, donor in pairs)
    assert 0 < carried < 8
    assert (shares.carries.n, shares.carries.value) == (carried, 1.0)
    assert shares.without_generated == {"same_answer": 8 - carried}
    assert len(pool.asked) == 16 + carried

    more = Pool()
    assert len(measure(examples, folder, more, number=10).records) == 10
    assert {beginning.question.id for beginning in more.asked} >= {
        q.id for q in examples if q.id in {r.id for r in SWAPPED.read(swapped_file(folder)).records}
    } - {record.id for record in found.records}
    lines = CONTINUATIONS.read(folder / "swapped_reasoning.jsonl")
    assert len({line.key for line in lines}) == len(lines)
    none = Pool()
    measure([*examples[:1], *examples[1:]], folder, none, number=9)
    assert none.asked == []


def test_another_reference_is_another_beginning(examples, folder):
    measure(examples, folder, Pool())
    changed = [replace(e, values=e.values | {"reasoning": "Otherwise."}) if e.id == "q3" else e for e in examples]
    again = Pool()
    measure(changed, folder, again)
    assert "q3" in {beginning.source.id for beginning in again.asked}
    assert len(again.asked) < 16, "the others' chunks stay"


def test_what_could_not_be_encoded_is_left_out_by_reason(examples, folder):
    found = measure(examples, folder, Pool(refuses="q4"))
    assert found.left_out["not_reproduced"] == 8 - len(found.records) > 0
    assert "q4" not in {record.id for record in found.records} | {record.donor for record in found.records}


def test_shares_have_wilson_intervals_and_strategies_are_tested_on_the_same_questions():
    shares = SwapShares.of(swapped("fffffkknuu"))
    wilson = binomtest(5, 8).proportion_ci(method="wilson")
    assert (shares.follows.n, shares.follows.value) == (8, 5 / 8)
    assert shares.follows.interval == pytest.approx((wilson.low, wilson.high))
    assert (shares.keeps.value, shares.neither.value) == (2 / 8, 1 / 8)
    assert shares.carries.n == 0
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
