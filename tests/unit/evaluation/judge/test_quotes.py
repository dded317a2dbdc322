"""What is judged can neither leave the judge's quotes nor blur them, whatever family the judge is of."""

import copy
import json
import re
import unicodedata

import pytest
import transformers
from tokenizers import AddedToken

from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.endpoint import Chat
from sftkey_dist.errors import ModelError
from sftkey_dist.evaluation.judge.local import LocalJudge, as_example
from sftkey_dist.evaluation.judge.reading import read_verdict
from sftkey_dist.evaluation.judge.template import Question, load_template
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.models.vocabulary import special_tokens

CONTROL_TOKENS = [
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|endoftext|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<bos>",
    "<\uff5cUser\uff5c>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "\uff1cend_of_turn\uff1e",
    "[gMASK]",
    "[SYSTEM_PROMPT]",
    "[TOOL_CALLS]",
    "[THINK]",
    "[|system|]",
    "[|endofturn|]",
    "]~b]ai",
    "]~!b[",
    "[e~[",
    "[SEP]",
    "[UNUSED_TOKEN_146]",
    "\u25c1think\u25b7",
    "<|START_OF_TURN_TOKEN|>",
    "<|return|>",
]
UNSEEN = [
    "\u2028",
    "\u2029",
    "\x85",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u2069",
    "\u061c",
    "\u200b",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\u00ad",
    "\u3164",
    "\ufe0f",
    "\U000e0041\U000e0042",
    "\U000e0100",
    "\ue000",
    "\ud800",
    "\udc00",
]
PLACES = ["question", "reference", "answer"]


def prompt_with(place, text, template="equivalence"):
    return load_template(template).chat(Question(**(dict.fromkeys(PLACES, "7") | {place: f"a {text} b"}))).user


def string_in(prompt, place):
    return [line for line in prompt.split("\n") if line.startswith('"')][PLACES.index(place)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_control_tokens_of_any_family_are_escaped_reversibly(token, place):
    prompt = prompt_with(place, token)
    assert token not in prompt
    assert token not in unicodedata.normalize("NFKC", prompt)
    assert json.loads(string_in(prompt, place)) == f"a {token} b"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("character", UNSEEN)
def test_what_nobody_sees_or_what_reorders_is_escaped_reversibly(character, place):
    prompt = prompt_with(place, character)
    assert prompt.isascii(), "the template's own text is; so is what stands for the character"
    assert all(each == "\n" or each.isprintable() for each in prompt)
    assert len(prompt.splitlines()) == len(prompt_with(place, "x").splitlines())
    assert json.loads(string_in(prompt, place)) == f"a {character} b"
    prompt.encode()


def test_ordinary_texts_of_mathematics_and_other_scripts_stay_readable():
    for text in (r"x \in [0, 1] \cup [a], a[i] = \frac{1}{2}", "Größe: 日本 ½ “ja” (B)", "مرحبا, שלום", "😀 ok"):
        assert json.dumps(f"a {text} b", ensure_ascii=False) in prompt_with("answer", text)


def test_a_cut_text_says_which_end_is_missing():
    (shown,) = re.findall(r"<candidate_answer>\n(.*)\n</candidate_answer>", prompt_with("answer", "x" * 9000 + "7"))
    assert json.loads(shown).startswith("… the first 1005 characters are left out: xxx")
    assert json.loads(shown).endswith("xx7 b")


@pytest.fixture(scope="module")
def judge_folder(tiny_model, tmp_path_factory):
    """A model whose special tokens are of several families, and whose template writes some."""
    folder = tmp_path_factory.mktemp("judge") / "judge"
    transformers.AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(folder)
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.add_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("verdict", "the", "[INST]", "@user@")],
        special_tokens=True,
    )
    tokenizer.chat_template = (
        "{% for message in messages %}@user@{{ message.role }}: {{ message.content | trim }}\n{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    return folder


def test_a_local_judge_reads_no_special_token_but_its_templates_own(judge_folder):
    """Its own may be any text: here ordinary words of the prompt, which no escaping could know of."""
    tokenizer = load_tokenizer(judge_folder)
    prompts = PromptEncoder(tokenizer, PromptConfig(template="chat"))
    chat = load_template("equivalence").chat(Question("the verdict?", "the [INST]", "verdict: the @user@"))
    special = special_tokens(tokenizer)
    ordinary = prompts.ids([prompts.text(as_example(chat))])[0]
    assert [special[i] for i in ordinary if i in special].count("the") > 3, "read as usual, they would be"
    ids = prompts.ids_of_quoted(as_example(chat))
    assert [special[i] for i in ids if i in special] == ["@user@", "@user@"]
    assert tokenizer.decode(ids) == tokenizer.decode(ordinary), "the text is the same"


def test_a_prompt_without_control_tokens_is_encoded_as_ever(judge_folder):
    prompts = PromptEncoder(load_tokenizer(judge_folder), PromptConfig(template="chat"))
    example = as_example(Chat("Say yes.", "Is 7 = 7? [0, 1]"))
    assert prompts.ids_of_quoted(example) == prompts.ids([prompts.text(example)])[0]


def test_a_local_judge_that_cannot_take_one_text_answers_the_others(judge_folder, monkeypatch):
    judge = LocalJudge(LocalJudgeConfig(path=str(judge_folder), max_tokens=4, reply="chosen"), judge_folder)
    monkeypatch.setattr(type(judge._generator), "most_tokens", 60)
    first, long, last = judge.replies([Chat("", "7?"), Chat("", "8 " * 80), Chat("", "9?")], read_verdict)
    assert (first.failure, last.failure) == ("", "")
    assert long.failure.startswith("prompt_too_long: ")


def test_a_template_that_refuses_one_text_fails_on_it_and_one_that_refuses_all_is_an_error(judge_folder):
    judge = LocalJudge(LocalJudgeConfig(path=str(judge_folder), max_tokens=4, reply="chosen"), judge_folder)
    tokenizer = copy.copy(judge._generator.tokenizer)
    refuse = "{% if 'EVIL' in messages[0].content %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    tokenizer.chat_template = refuse + "{% if messages|length > 1 %}{{ raise_exception('no system') }}{% endif %}"
    judge._generator.prompts._tokenizer = tokenizer
    judge._generator.prompts._template = tokenizer.chat_template
    fine, evil = judge.replies([Chat("", "7?"), Chat("", "EVIL")], read_verdict)
    assert (fine.failure, evil.failure.partition(":")[0]) == ("", "prompt_refused")
    with pytest.raises(ModelError, match="no system"):
        judge.replies([Chat("Grade.", "7?")], read_verdict)
