"""Guided decoding: by construction the format is kept, and only what is allowed competes for the next token."""

import importlib.util
import shutil
from dataclasses import replace
from itertools import product

import pytest
import torch
from llguidance import LLParserLimits
from transformers import AutoModelForCausalLM

from sftkey_dist.config.evaluation import EvaluationConfig, ServedModelConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Check, Form, ResponseContract, Segment
from sftkey_dist.contract.response_schema import RESPONSE_SCHEMA, response_schema
from sftkey_dist.contract.segment import NumberRange
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.evaluation.generation import Decoding, load, masks
from sftkey_dist.evaluation.generation.guide import Guide
from sftkey_dist.evaluation.generation.local import LocalGenerator
from sftkey_dist.evaluation.generation.served import ServedGenerator
from sftkey_dist.evaluation.job import EvaluationJob, generation_digest
from sftkey_dist.files import to_json
from tests.chat_server import chat_server
from tests.model_server import model_server

PROMPTS = [
    Example(f"p:{i}", prompt, {})
    for i, prompt in enumerate(["Approve?", "Approve, review or reject? Income: steady.", "a", "Debt: low. " * 12])
]
WORDS, LABELS = ("Income is steady.", "Debt is high."), ("approve", "review", "reject")
CONTAINERS = ("tags", "json", "plain")
LONGEST = 64


def contract_of(container, reasoning):
    answer = Segment(name="answer", key=True, check=Check(one_of=LABELS))
    return ResponseContract(container=container, segments=(Segment(name="reasoning", check=reasoning), answer))


@pytest.fixture(scope="module")
def generator(tiny_model):
    return LocalGenerator(tiny_model, PromptConfig(), trust_remote_code=False)


def guided(container, reasoning, **decoding):
    contract = contract_of(container, reasoning)
    return contract, Decoding(LONGEST, **decoding, guide=Guide(contract, Form.TAGGED))


def texts(contract):
    """All responses of a contract whose segments are labels."""
    values = product(WORDS, LABELS)
    rendered = (contract.render(dict(zip(("reasoning", "answer"), pair, strict=True)), Form.TAGGED) for pair in values)
    return ["".join(piece.text for piece in pieces) for pieces in rendered]


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_likeliest_of_the_allowed_tokens_is_taken_whatever_else_is_in_the_batch(
    generator, tiny_model, tokenizer, container
):
    """The reference asks no grammar: a token is allowed if one of the six possible responses goes on with its text."""
    contract, decoding = guided(container, Check(one_of=WORDS))
    model, prompts = AutoModelForCausalLM.from_pretrained(tiny_model).eval(), PromptEncoder(tokenizer, PromptConfig())
    possible, end = texts(contract), prompts.end_of_turn_id
    spelled = [tokenizer.decode([token_id]) for token_id in range(len(tokenizer))]
    for prompt, (generation,) in zip(PROMPTS, generator.generate(PROMPTS, decoding), strict=True):
        (ids,) = prompts.ids([prompts.text(prompt)])
        written, new = "", []
        while not new or new[-1] != end:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1]
            allowed = [i for i, text in enumerate(spelled) if any(p.startswith(written + text) for p in possible)]
            allowed = [end] if written in possible else [i for i in allowed if i not in tokenizer.all_special_ids]
            new.append(max(allowed, key=lambda token_id: logits[token_id].item()))
            written += "" if new[-1] == end else spelled[new[-1]]
        assert generation.text == written
        assert (generation.truncated, generation.num_tokens) == (False, len(new) - 1)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_samples": 3, "temperature": 1.0, "seed": 1},
        {"num_samples": 2, "temperature": 5.0, "top_p": 0.05, "seed": 1},  # a nucleus that may have no allowed token
    ],
)
def test_a_model_that_keeps_no_format_keeps_it_when_guided(generator, container, how):
    contract, decoding = guided(container, Check(regex="[a-zA-Z ,]{3,12}"), **how)
    free = [sample for of_one in generator.generate(PROMPTS, replace(decoding, guide=None)) for sample in of_one]
    assert not any(contract.parse(sample.text, Form.TAGGED).keeps_contract for sample in free)
    drawn = generator.generate(PROMPTS, decoding)
    samples = [sample for of_one in drawn for sample in of_one]
    assert [len(of_one) for of_one in drawn] == [decoding.num_samples] * len(PROMPTS)
    assert not any(sample.truncated for sample in samples)
    assert all(contract.parse(sample.text, Form.TAGGED).keeps_contract for sample in samples)
    assert generator.generate(PROMPTS, decoding) == drawn
    if how.get("temperature") == 1.0:
        assert len({sample.text for sample in samples}) > len(PROMPTS), "samples differ"


def test_a_response_that_is_cut_off_is_the_beginning_of_one_that_is_not(generator):
    _, decoding = guided("tags", Check(one_of=WORDS))
    for (whole,), (cut,) in zip(
        generator.generate(PROMPTS, decoding),
        generator.generate(PROMPTS, replace(decoding, max_new_tokens=9)),
        strict=True,
    ):
        assert cut.truncated
        assert whole.text.startswith(cut.text)


def test_generation_may_stop_at_the_closing_tag(generator):
    _, decoding = guided("tags", Check(one_of=WORDS))
    assert generator.generate(PROMPTS, replace(decoding, closing_tag="</Answer>")) == generator.generate(
        PROMPTS, decoding
    )


def test_a_grammar_that_is_too_much_work_with_a_tokenizer_is_a_users_error(generator, monkeypatch):
    """Only the model's tokenizer shows it, and not before training; that of the tests is too small."""
    _, decoding = guided("tags", Check(regex=".{1,300}"))
    load.require_grammar(decoding.guide)
    monkeypatch.setattr(masks, "_LIMITS", LLParserLimits(step_lexer_fuel=1000))
    with pytest.raises(DataError, match=r"too complex for a grammar .*too many expressions.*evaluation.guided=false"):
        generator.generate(PROMPTS[:1], decoding)


def test_a_prompt_that_no_response_can_continue_is_named(tokenizer):
    contract = ResponseContract(
        container="plain",
        segments=(Segment(name="a", delimiter="<think>\n"), Segment(name="b", key=True, delimiter="\n</think>\n\n")),
    )
    prompts = PromptEncoder(tokenizer, PromptConfig())
    assert prompts.uses_chat
    with pytest.raises(DataError, match=r"evaluation.guided=true: the chat template ends the prompt with </think>"):
        Guide(contract, Form.TAGGED).grammar("q<think>\n\n</think>\n\n", prompts)


def test_the_digest_of_generations_tells_guided_ones_from_others(contract, memos):
    def digest(contract=contract, **settings):
        job = EvaluationJob(
            Form.TAGGED,
            contract,
            PromptConfig(),
            EvaluationConfig(**settings),
            {},
            0,
            False,
            model_dir="m",
            strategy="s",
        )
        return generation_digest(job, "model", memos[:2])

    other = contract_of("tags", None)
    assert digest() == digest(guided=False) == digest(other), "what does not constrain does not count"
    assert len({digest(), digest(guided=True), digest(other, guided=True)}) == 3
    assert "guided" not in EvaluationConfig().model_dump()


def test_the_digest_of_generations_has_the_tools_of_each_test_set(contract):
    """Two test sets may have the same ids."""

    def digest(*tools):
        examples = [
            Example("rows#1", "p", {}, data_set=name, tools=({"name": tool},))
            for name, tool in zip("AB", tools, strict=True)
        ]
        settings = (PromptConfig(), EvaluationConfig(), {}, 0, False)
        return generation_digest(EvaluationJob(Form.TAGGED, contract, *settings, "m", "s"), "model", examples)

    assert len({digest("add", "sort"), digest("subtract", "sort"), digest("add", "find")}) == 3


def served(folder, server, api, decoding):
    config = ServedModelConfig(url=server.url, model="m", api=api, concurrency=2)
    return ServedGenerator(config, "none", folder, PromptConfig(), False).generate(PROMPTS, decoding)


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(tiny_model, folder)
    schema = response_schema(contract_of("json", Check(one_of=WORDS)), Form.TAGGED)
    (folder / RESPONSE_SCHEMA).write_text(to_json(schema))
    return folder


def test_a_server_that_constrains_keeps_the_format(exported, generator):
    with model_server(exported, frozenset({"response_format", "structured_outputs"})) as server:
        contract, decoding = guided("json", Check(one_of=WORDS))
        for (generation,) in served(exported, server, "chat", decoding):
            assert contract.parse(generation.text, Form.TAGGED).keeps_contract
        assert all("structured_outputs" not in request for request in server.requests)
        for container, api in (("tags", "completions"), ("plain", "chat")):
            _, decoding = guided(container, Check(one_of=WORDS))
            found = [generation.text for (generation,) in served(exported, server, api, decoding)]
            assert found == [generation.text for (generation,) in generator.generate(PROMPTS, decoding)]


@pytest.mark.parametrize(("container", "field"), [("json", "response_format"), ("tags", "structured_outputs")])
def test_a_server_that_ignores_what_constrains_is_named(exported, container, field):
    _, decoding = guided(container, Check(one_of=WORDS))
    with model_server(exported, frozenset()) as server:
        found = served(exported, server, "chat", decoding)
        assert all(generation.truncated for (generation,) in found), "what is cut off proves nothing"
    with chat_server(lambda messages: "approve") as server:
        with pytest.raises(ConfigError, match=rf"the server ignores {field}: a response that has ended breaks the"):
            served(exported, server, "chat", decoding)
        assert field in server.requests[0]


def test_a_server_is_not_blamed_for_what_a_schema_cannot_say():
    contract = contract_of("json", Check(regex="[a-z]+"))
    guide = Guide(contract, Form.TAGGED)
    assert guide.breach('{"reasoning": "so", "answer": "approve"}') == ""
    assert guide.breach('{"reasoning": " ", "answer": "approve"}') == ""
    assert guide.breach('{"reasoning": "SO", "answer": "approve"}') == ""
    assert guide.breach('{"answer": "approve", "reasoning": "so"}') == "", "a schema has no order"
    assert guide.breach('{"reasoning": "\\ud800", "answer": "approve"}') == "", "half a character is a string too"
    for text in (
        '{"reasoning": "so", "answer": "yes"}',
        '{"answer": "approve"}',
        '{"reasoning": "so", "answer": "approve", "more": 1}',
        '{"reasoning": 1, "answer": "approve"}',
        "so: approve",
    ):
        assert guide.breach(text)
    unique = Check(json_schema={"type": "array", "uniqueItems": True})
    numbers = Segment(name="numbers", key=True, value="json", check=unique)
    amount = Segment(name="amount", value="json", check=Check(number=NumberRange(max=9)))
    keywords = Guide(ResponseContract(container="json", segments=(numbers, amount)), Form.TAGGED)
    assert keywords.breach('{"numbers": [1, 1], "amount": 10}') == "", "keywords that some servers leave out"
    assert keywords.breach('{"numbers": "1", "amount": 10}')


def test_a_server_is_not_blamed_for_marks_that_no_grammar_can_keep_out_of_json():
    call = Segment(name="call", check=Check(json_schema={"type": "object"}))
    contract = ResponseContract(segments=(call, Segment(name="answer", key=True)))
    guide = Guide(contract, Form.TAGGED)
    for inside in ("</Call><Answer>9</Answer>", "<Answer>"):
        text = f'<Call>{{"a": "{inside}"}}</Call><Answer>9</Answer>'
        assert not contract.parse(text, Form.TAGGED).keeps_contract
        assert guide.breach(text) == ""
    assert guide.breach('<Call>{"a": "</Answer>"}</Call> 9').startswith("missing: ")
    assert Guide(contract_of("tags", None), Form.TAGGED).breach("<Reasoning>a</Reasoning>" * 2).startswith("missing: ")


def test_grammars_are_checked_before_anything_is_trained(monkeypatch):
    load.require_grammar(Guide(contract_of("tags", Check(one_of=WORDS)), Form.TAGGED))
    looks_around = Guide(contract_of("tags", Check(regex="(?=a)b")), Form.TAGGED)
    with pytest.raises(ConfigError, match=r"a check of the contract cannot be part of a grammar .*look-around"):
        load.require_grammar(looks_around)
    with pytest.raises(ConfigError, match=r"a check of the contract cannot be part of a grammar .*fuel exhausted"):
        load.require_grammar(Guide(contract_of("tags", Check(regex=".{1,2000}")), Form.TAGGED))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    load.require_grammar(looks_around)
    load.require_backend(EvaluationConfig())
    with pytest.raises(
        ConfigError, match=r"llguidance is not installed; install it with pip install 'sftkey_dist\[guided\]'"
    ):
        load.require_backend(EvaluationConfig(guided=True))
