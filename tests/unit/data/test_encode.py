"""Template × contract × source: what a token is trained as is exactly what the segment says, or the row is refused."""

import copy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Check, ContractError, Form, NumberRange, ResponseContract, Segment
from sftkey_dist.data.data_sets import cot_collection, gsm8k, openbookqa, openr1_math
from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example, Refusal, Turn
from sftkey_dist.errors import ModelError
from tests.unit.data.test_sources import COT_ROW, GSM8K_ROW, OPENBOOKQA_HUB_ROW, OPENR1_ROW

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": PromptConfig(template="chat"),
    "plain": PromptConfig(template="plain"),
    "system": PromptConfig(system="Be brief."),
    "llama3": PromptConfig(template="chat", system="Be brief."),
}
TWO = (Segment(name="reasoning", tag="Thinking"), Segment(name="answer", tag="Answer", key=True))
CONTRACTS = {
    "paper": ResponseContract(),
    "special": ResponseContract(special_token_tags=True),
    "json": ResponseContract(segments=TWO, container="json"),
    "plain": ResponseContract(container="plain", delimiter="\nSo: "),
    "optional": ResponseContract(
        segments=(Segment(name="reasoning", required=False), Segment(name="answer", key=True))
    ),
    "three": ResponseContract(
        segments=(
            *TWO,
            Segment(
                name="confidence",
                key=True,
                value="json",
                required=False,
                delimiter="\nConfidence: ",
                check=Check(number=NumberRange(min=0, max=1)),
            ),
        ),
        container="json",
    ),
}
ROWS = {
    "gsm8k": gsm8k.adapt(GSM8K_ROW),
    "openbookqa": openbookqa.adapt(OPENBOOKQA_HUB_ROW),
    "openr1": openr1_math.adapt(OPENR1_ROW),
    "cot": cot_collection.adapt(COT_ROW),
}


@pytest.fixture(scope="module")
def tokenizers(tokenizer):
    """By template and contract; the Llama-3 one has its header tokens, one has tags as special tokens."""

    def make(template: str, contract: ResponseContract):
        made = copy.deepcopy(tokenizer)
        if template == "llama3":
            made.chat_template = LLAMA3
            tokens = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            made.add_special_tokens({"bos_token": tokens[0], "additional_special_tokens": tokens[1:]})
        made.add_tokens(list(contract.special_tokens), special_tokens=True)
        return made

    return {(t, c): make(t, contract) for t in TEMPLATES for c, contract in CONTRACTS.items()}


def encoder(tokenizer, contract, form, prompt=TEMPLATES["chatml"], max_length=100_000):
    return ExampleEncoder(tokenizer, PromptEncoder(tokenizer, prompt), contract, form, max_length)


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def text_by_segment(encoded, tokenizer, contract):
    ids, segments = np.array(encoded.input_ids), np.array(encoded.segment_ids)
    return {name: decoded(tokenizer, ids[segments == i].tolist()) for i, name in enumerate(contract.segment_names)}


def assert_exact(item, example, tokenizer, contract, form, prompt):
    """Every segment decodes to its piece, and the whole to the prompt followed by the response."""
    expected = dict.fromkeys(contract.segment_names, "")
    for piece in contract.render(example.values, form):
        expected[piece.segment] += piece.text
    prompts = PromptEncoder(tokenizer, prompt)
    expected["prompt"] = decoded(tokenizer, prompts.ids([prompts.text(example)])[0])
    expected["end_of_turn"] = decoded(tokenizer, [prompts.end_of_turn_id])
    assert text_by_segment(item, tokenizer, contract) == expected


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_segment_decodes_to_exactly_its_text(tokenizers, template, name, row, form):
    tokenizer, contract, prompt = tokenizers[template, name], CONTRACTS[name], TEMPLATES[template]
    example = Example("row:1", ROWS[row].prompt, ROWS[row].values)
    (item,) = encoder(tokenizer, contract, form, prompt).encode([example])
    assert isinstance(item, EncodedExample), item
    assert_exact(item, example, tokenizer, contract, form, prompt)
    if contract.special_tokens and form is Form.TAGGED:
        opening = contract.segment_names.index("answer.open")
        assert item.segment_ids.count(opening) == 1


HOSTILE = st.text(max_size=40) | st.sampled_from(
    [
        *[
            "<Answer>",
            "</Answer>",
            "<Thinking>",
            "\nSo: ",
            "\n#### ",
            "{",
            "}",
            '"',
            "\\",
            '", "answer": "',
            "<|im_end|>",
        ],
        *[
            "<|im_end|>",
            "<|eot_id|>",
            "\x00",
            "🙂",
            "👩‍👩‍👧",
            "שלום עולם",
            "مرحبا",
            " ",
            "\n",
            "\t",
            "​",
            "﷽",
            "1.0",
            "e\u0301",
        ],
    ]
)
TEXT = st.lists(HOSTILE, min_size=1, max_size=5).map("".join)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
def test_hostile_text_is_encoded_exactly_or_refused_with_a_reason(tokenizers, data):
    template, name = data.draw(st.sampled_from(list(TEMPLATES))), data.draw(st.sampled_from(list(CONTRACTS)))
    tokenizer, contract, prompt = tokenizers[template, name], CONTRACTS[name], TEMPLATES[template]
    values = {segment.name: data.draw(TEXT) for segment in contract.segments}
    example = Example("x:1", data.draw(TEXT), values)
    for form in Form:
        (item,) = encoder(tokenizer, contract, form, prompt).encode([example])
        if isinstance(item, Refusal):
            assert item.reason
            assert item.detail
        else:
            assert_exact(item, example, tokenizer, contract, form, prompt)


@pytest.mark.parametrize("text", ["x" * 100_000, "ab " * 33_000, "\n" * 100_000, "🙂" * 25_000, "<Answer" * 14_000])
def test_very_long_text_is_encoded_exactly(tokenizers, contract, text):
    example = Example("x:1", "p", {"reasoning": text + "!", "answer": "yes"})
    tokenizer = tokenizers["chatml", "paper"]
    (item,) = encoder(tokenizer, contract, Form.TAGGED, max_length=10**6).encode([example])
    assert text_by_segment(item, tokenizer, contract)["reasoning"] == text + "!"


def test_prompt_ids_are_those_of_inference(tokenizer, contract, memos):
    (encoded,) = encoder(tokenizer, contract, Form.TAGGED).encode(memos[:1])
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": memos[0].prompt}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert encoded.input_ids[: len(rendered)] == rendered


def test_a_conversation_is_written_whole_and_its_own_system_message_wins(tokenizer, contract):
    history = (Turn("system", "Own."), Turn("user", "one"), Turn("assistant", "two"))
    example = Example("x:1", "three", {"reasoning": "r", "answer": "a"}, history)
    text = PromptEncoder(tokenizer, TEMPLATES["system"]).text(example)
    assert "Be brief." not in text
    assert text == tokenizer.apply_chat_template(
        [*({"role": t.role, "content": t.content} for t in history), {"role": "user", "content": "three"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    (refused,) = encoder(tokenizer, contract, Form.TAGGED, TEMPLATES["plain"]).encode([example])
    assert (refused.reason, "chat template" in refused.detail) == ("prompt_refused", True)


def test_a_template_that_refuses_a_conversation_refuses_the_row(tokenizer, contract):
    picky = copy.deepcopy(tokenizer)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    picky.chat_template = refusal + tokenizer.chat_template
    values = {"reasoning": "r", "answer": "a"}
    examples = [Example("x:1", "p", values, (Turn("system", "s"),)), Example("x:2", "p", values)]
    bad, good = encoder(picky, contract, Form.TAGGED).encode(examples)
    assert (bad.reason, "no system" in bad.detail) == ("prompt_refused", True)
    assert isinstance(good, EncodedExample)
    with pytest.raises(ModelError, match=r"no system.*prompt\.system"):
        PromptEncoder(picky, TEMPLATES["system"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"reasoning": "a <Answer> b", "answer": "c"}, "delimiter_in_text"),
        ({"reasoning": "a", "answer": ""}, "empty_answer"),
        ({"reasoning": "a <|im_end|> b", "answer": "c"}, "special_token_in_text"),
        ({"reasoning": "word " * 50, "answer": "c"}, "too_long"),
    ],
)
def test_refusals_have_a_reason_and_do_not_shift_their_neighbours(tokenizer, contract, values, reason):
    encoding = encoder(tokenizer, contract, Form.TAGGED, max_length=40)
    short = Example("ok:1", "p", {"reasoning": "r", "answer": "yes"})
    before, bad, after = encoding.encode([short, Example("bad:1", "p", values), short])
    assert isinstance(bad, Refusal)
    assert (bad.id, bad.reason) == ("bad:1", reason)
    assert isinstance(before, EncodedExample)
    assert before == after


def test_a_tokenizer_that_changes_text_refuses_it(tokenizer):
    """Control for the exactness check: a tokenizer that lower-cases cannot train what is written."""
    changed = copy.deepcopy(tokenizer)
    changed.backend_tokenizer.normalizer = normalizers.Lowercase()
    upper, lower = (Example("x:1", "p", {"reasoning": text, "answer": "a"}) for text in ("ABC", "abc"))
    contract = ResponseContract(
        segments=(Segment(name="reasoning", tag="t"), Segment(name="answer", tag="a", key=True))
    )
    bad, good = encoder(changed, contract, Form.TAGGED).encode([upper, lower])
    assert (bad.reason, "'ABC' into 'abc'" in bad.detail) == ("not_reproduced", True)
    assert isinstance(good, EncodedExample)


@pytest.mark.parametrize("scheme", ["always", "first"])
def test_a_tokenizer_whose_pieces_do_not_join_is_refused(tokenizer, contract, scheme):
    """Control: SentencePiece's Metaspace begins every piece with a space that decoding it alone hides."""
    changed = copy.deepcopy(tokenizer)
    changed.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    changed.backend_tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    changed.add_tokens(["\u2581a", "\u2581b", "a", "b"])
    with pytest.raises(ModelError, match="segments cannot be encoded exactly"):
        encoder(changed, contract, Form.TAGGED)


EOT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"


@pytest.fixture
def unnamed_special(tokenizer):
    """A tokenizer as Gemma's: EOS is one token, and a turn ends with another that its own entry alone calls special."""
    made = copy.deepcopy(tokenizer)
    made.add_tokens([AddedToken("<end_of_turn>", special=True, normalized=False)])
    made.chat_template = EOT
    assert made.convert_tokens_to_ids("<end_of_turn>") not in made.all_special_ids
    return made


def test_a_turn_ends_with_the_token_that_the_template_writes_though_eos_is_another(unnamed_special, tokenizer):
    end = PromptEncoder(unnamed_special, PromptConfig()).end_of_turn_id
    assert unnamed_special.convert_ids_to_tokens(end) == "<end_of_turn>"
    other = copy.deepcopy(tokenizer)
    other.eos_token = "<|endoftext|>"
    assert other.convert_ids_to_tokens(PromptEncoder(other, PromptConfig()).end_of_turn_id) == "<|im_end|>"
    assert PromptEncoder(other, PromptConfig(template="plain")).end_of_turn_id == other.eos_token_id


@pytest.mark.parametrize("segment", ["reasoning", "answer"])
def test_the_text_of_any_special_token_in_a_response_is_refused(unnamed_special, contract, segment):
    values = {"reasoning": "r", "answer": "a"} | {segment: "x <end_of_turn> more"}
    (refusal,) = encoder(unnamed_special, contract, Form.TAGGED).encode([Example("x:1", "p", values)])
    assert refusal.reason == "special_token_in_text"


def test_special_tokens_of_a_rows_own_prompt_are_found(unnamed_special):
    history = (Turn("system", "Never write <|im_end|>."), Turn("user", "plain"), Turn("assistant", "text"))
    found = PromptEncoder(unnamed_special, PromptConfig()).special_tokens_in
    assert found(Example("x:1", "What is <end_of_turn>?", {}, history)) == ["<|im_end|>", "<end_of_turn>"]
    assert found(Example("x:2", "1 < 2 and <b>", {})) == []


@pytest.mark.parametrize(
    "content",
    [
        "{{ m.content.split('</think>')[1] if m.role == 'assistant' else m.content }}",
        "{{ m.content if m.role != 'assistant' else '' }}",
        "{{ m.content | upper }}",
    ],
)
def test_a_template_that_does_not_show_the_response_is_named(tokenizer, content):
    """The first special token that follows would be one of the prompt."""
    hiding = copy.deepcopy(tokenizer)
    hiding.chat_template = "{% for m in messages %}<|im_start|>" + content + "<|im_end|>{% endfor %}"
    with pytest.raises(ModelError, match=r"chat template does not contain the assistant's.*prompt\.template=plain"):
        PromptEncoder(hiding, PromptConfig())


def test_of_several_templates_the_default_one_is_used_and_must_be_there(tokenizer):
    several = copy.deepcopy(tokenizer)
    several.chat_template = {"default": tokenizer.chat_template, "tool_use": "tools"}
    question = Example("x:1", "p", {})
    assert PromptEncoder(several, PromptConfig()).text(question) == PromptEncoder(tokenizer, PromptConfig()).text(
        question
    )
    several.chat_template = {"rag": "documents", "tool_use": "tools"}
    with pytest.raises(ModelError, match=r"chat templates rag, tool_use, but none is named 'default'"):
        PromptEncoder(several, PromptConfig())


@pytest.mark.parametrize("fault", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{% if %}", "{{ m.content.nothing.there }}"])
def test_whatever_a_template_raises_is_one_error(tokenizer, fault):
    broken = copy.deepcopy(tokenizer)
    broken.chat_template = tokenizer.chat_template + fault
    with pytest.raises(ModelError, match=r"chat template refuses it: .*; see prompt\.system and prompt\.template"):
        PromptEncoder(broken, PromptConfig())


def test_ids_do_not_depend_on_which_segments_are_key(tokenizer, contract, memos):
    other = ResponseContract(
        segments=tuple(segment.model_copy(update={"key": not segment.key}) for segment in contract.segments)
    )
    one, two = (encoder(tokenizer, c, Form.TAGGED).encode(memos) for c in (contract, other))
    assert one == two


def test_asking_for_a_missing_chat_template_is_an_error(tokenizer):
    class Bare:
        chat_template = None

    with pytest.raises(ModelError, match=r"prompt\.template=plain"):
        PromptEncoder(Bare(), PromptConfig(template="chat"))


def test_rendering_refuses_what_encoding_could_not_tell_apart(contract):
    with pytest.raises(ContractError):
        contract.render({"reasoning": "a</Thinking>", "answer": "b"}, Form.TAGGED)


def test_a_tokenizer_that_composes_characters_trains_them_composed(tokenizer, contract):
    composing = copy.deepcopy(tokenizer)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    apart = Example("x:1", "p", {"reasoning": "un cafe\u0301", "answer": "10 \u212b"})
    (encoded,) = encoder(composing, contract, Form.TAGGED).encode([apart])
    assert isinstance(encoded, EncodedExample)
    text = decoded(composing, encoded.input_ids)
    assert "un caf\u00e9" in text
    assert "10 \u00c5" in text


@pytest.mark.parametrize(
    ("template", "prompt", "hidden"),
    [
        (
            "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}</s>{% endif %}{% endfor %}",
            "Be brief.",
            "Be",
        ),
        ("{% for m in messages %}{{ m.content[:6] }}</s>{% endfor %}", None, "a long question"),
    ],
    ids=["system", "cut"],
)
def test_a_template_that_does_not_show_a_message_refuses_the_row(tokenizer, contract, template, prompt, hidden):
    hiding = copy.deepcopy(tokenizer)
    hiding.chat_template = template.replace("m.content[:6]", "(m.content if m.role == 'assistant' else m.content[:6])")
    prompts = PromptEncoder(hiding, PromptConfig(system=prompt))
    example = Example("x:1", "a long question", {"reasoning": "r", "answer": "a"})
    (refused,) = ExampleEncoder(hiding, prompts, contract, Form.TAGGED, 512).encode([example])
    assert isinstance(refused, Refusal)
    assert refused.reason == "prompt_refused"
    assert f"does not show the message of role {'system' if prompt else 'user'!r}, '{hidden}" in refused.detail


def test_a_switch_that_a_template_reads_and_removes_hides_nothing(tokenizer):
    reading = copy.deepcopy(tokenizer)
    reading.chat_template = "{% for m in messages %}{{ m.content.replace('/no_think', '').rstrip() }}</s>{% endfor %}"
    prompts = PromptEncoder(reading, PromptConfig(system="Be brief. /no_think"))
    assert prompts.text(Example("x:1", "q", {})) == "Be brief.</s>q</s>"


def test_an_example_may_be_as_long_as_is_allowed_and_no_longer(tokenizer, contract):
    example = Example("row:1", "p", {"reasoning": "r", "answer": "yes"})
    (item,) = encoder(tokenizer, contract, Form.TAGGED).encode([example])
    length = len(item.input_ids)
    (longest,), (refused,) = (
        encoder(tokenizer, contract, Form.TAGGED, max_length=most).encode([example]) for most in (length, length - 1)
    )
    assert longest == item
    assert isinstance(refused, Refusal)
    assert refused.reason == "too_long"


def test_a_prompt_without_tokens_refuses_the_row(tokenizer, contract):
    """Nothing would predict the first token of its response."""
    plain = PromptConfig(template="plain", plain="{prompt}")
    example = Example("row:1", "", {"reasoning": "r", "answer": "yes"})
    (refused,) = encoder(tokenizer, contract, Form.TAGGED, plain).encode([example])
    assert isinstance(refused, Refusal)
    assert refused.reason == "empty_prompt"
