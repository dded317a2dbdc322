"""`sftkey parity` against real servers on loopback, in the shapes of vLLM and llama.cpp."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from sftkey_dist.cli import app
from sftkey_dist.errors import UserError
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.chat_template import TemplateSettings
from sftkey_dist.models.embedded import train_tokenizer
from sftkey_dist.models.folder import write_with_template
from sftkey_dist.run_dir import RunDir
from tests.chat_templates import QWEN3
from tests.finished_run import write_run
from tests.tokenize_server import LlamaCpp, Vllm, tokenize_server

CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_SYSTEM = "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}" + CHAT
THINKING = CHAT.replace(
    "assistant\n' }}{% endif", "assistant\n' }}{% if not (thinks | default(true)) %}no thoughts{% endif %}{% endif"
)
REFUSING = "{{ raise_exception('no chats on Sundays') }}"
MAKES = pytest.mark.parametrize("make", [Vllm, LlamaCpp])
NAMES = {Vllm: "vLLM", LlamaCpp: "llama.cpp"}


@pytest.fixture
def config_file(run_config, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(run_config.model_dump_json(), encoding="utf-8")
    return file


def parity(*arguments):
    return CliRunner().invoke(app, ["parity", *map(str, arguments)])


def error_of(done):
    assert isinstance(done.exception, UserError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


def text_after_the_bar(line):
    return "".join(re.findall(r"\d+:'([^']*)'", line.partition(" | ")[2])).replace("\\n", "\n")


@MAKES
def test_a_server_of_the_same_folder_writes_the_same_prompts(make, tiny_model, config_file):
    with tokenize_server(make(tiny_model)) as server:
        done = parity(tiny_model, config_file, "--endpoint", server.url.removesuffix("/v1"))
    assert done.exit_code == 0, done.output
    assert "comparing prompts: 6/6" in done.output
    assert f"{NAMES[make]}, served: 6 of 6 prompts have the same token ids" in done.output
    paths = [path for path, _ in server.requests]
    assert paths.count("/tokenize") == 7
    assert paths.count("/apply-template") == (6 if make is LlamaCpp else 0)


@MAKES
def test_another_template_is_named_with_the_tokens_around_the_first_difference(make, tiny_model, config_file):
    with tokenize_server(make(tiny_model, WITH_SYSTEM)) as server:
        done = parity(tiny_model, config_file, "--endpoint", server.url)
    assert done.exit_code == 1
    first, here, there = done.output.splitlines()[1:4]
    assert first.startswith("decision_memos/test:1: token 2 differs (")
    assert first.endswith(": the chat template writes another text")
    assert here.startswith("  here:   1:'<|im_start|>' | ")
    assert there.startswith("  server: 1:'<|im_start|>' | ")
    assert text_after_the_bar(here).startswith("user\n")
    assert "system".startswith(text_after_the_bar(there)[:6])
    assert "… and 1 more rows that differ" in done.output
    assert "served: 0 of 6 prompts have the same token ids; 6: the chat template writes another text" in done.output


@MAKES
def test_another_tokenizer_is_distinguished_from_another_template(make, tiny_model, config_file, tmp_path):
    other = tmp_path / "other"
    train_tokenizer(["quite different text"] * 9, 300, 512).save_pretrained(other)
    with tokenize_server(make(other, CHAT)) as server:
        done = parity(tiny_model, config_file, "--endpoint", server.url, "-n", "2")
    assert done.exit_code == 1
    assert "0 of 2 prompts have the same token ids; 2: the tokenizer splits the same text differently" in done.output


def test_ids_that_the_model_lacks_are_shown_as_unknown(tiny_model, config_file):
    class Larger(Vllm):
        def _ids(self, body):
            return [*super()._ids(body), 123456, 2**40]

    with tokenize_server(Larger(tiny_model)) as server:
        done = parity(tiny_model, config_file, "--endpoint", server.url, "-n", "1")
    assert done.exit_code == 1
    assert "| (the end)" in done.output
    assert f"| 123456:(unknown here) {2**40}:(unknown here)" in done.output


@MAKES
def test_a_prompt_that_the_server_refuses_is_a_difference(make, tiny_model, config_file):
    with tokenize_server(make(tiny_model, REFUSING)) as server:
        done = parity(tiny_model, config_file, "--endpoint", server.url, "-n", "1")
    assert done.exit_code == 1
    assert "the server refuses the prompt: " in done.output
    assert "no chats on Sundays" in done.output


TOOL = {"type": "function", "function": {"name": "price_of", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "price_of", "arguments": {"thing": "a bike, größer"}}}
CONVERSATION = [
    {"role": "system", "content": "You grade claims."},
    {"role": "user", "content": "Good day."},
    {"role": "assistant", "content": "Good day to you."},
    {"role": "user", "content": "Is 20 a fair price?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "price_of", "content": "twenty or so"},
    {"role": "assistant", "content": "It is fair.\n#### yes"},
]


@MAKES
def test_tools_calls_and_the_arguments_of_a_row_reach_the_template(make, tiny_model, config_file, tmp_path):
    model = tmp_path / "thinking"
    write_with_template(tiny_model, model, TemplateSettings(QWEN3))
    row = {"messages": CONVERSATION, "tools": [TOOL]}
    rows = [row | {"chat_template_kwargs": {"enable_thinking": thinks}} for thinks in (False, True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = f"data.test={{adapter: messages, path: {tmp_path / 'rows.jsonl'}}}"
    with tokenize_server(make(model)) as server:
        done = parity(model, config_file, data, "--endpoint", server.url)
    assert done.exit_code == 0, done.output
    assert "2 of 2" in done.output
    sent = [body for _, body in server.requests if "messages" in body]
    assert sorted(body["chat_template_kwargs"]["enable_thinking"] for body in sent) == [False, True]
    assert all(body["tools"] == [TOOL] for body in sent)
    with tokenize_server(make(model, QWEN3.replace("{% if tools %}", "{% if false %}"))) as server:
        done = parity(model, config_file, data, "--endpoint", server.url)
    assert "0 of 2 prompts have the same token ids; 2: the chat template writes another text" in done.output


def test_what_a_configuration_fixes_in_the_template_counts(tiny_model, config_file, tmp_path):
    model = tmp_path / "thinking"
    write_with_template(tiny_model, model, TemplateSettings(THINKING))
    arguments = ("prompt.template_arguments={thinks: false}", "-n", "1")
    with tokenize_server(Vllm(model)) as server:
        done = parity(model, config_file, *arguments, "--endpoint", server.url)
    assert done.exit_code == 1, done.output
    exported = tmp_path / "exported"
    write_with_template(model, exported, TemplateSettings(arguments={"thinks": False}))
    with tokenize_server(Vllm(exported)) as server:
        assert parity(model, config_file, *arguments, "--endpoint", server.url).exit_code == 0
        assert parity(exported, config_file, *arguments, "--endpoint", server.url).exit_code == 0


@MAKES
def test_plain_prompts_are_compared_as_texts(make, tiny_model, config_file):
    with tokenize_server(make(tiny_model)) as server:
        done = parity(tiny_model, config_file, "prompt.template=plain", "--endpoint", server.url)
    assert done.exit_code == 0, done.output
    assert not any("messages" in body for _, body in server.requests)


def test_a_run_says_which_rows_and_which_model(tiny_model, run_config):
    run = RunDir(run_config.run_dir)
    write_run(run.path, {"sft-tag": 7, "sftkey-tag": 9})
    write_json_atomically(run.config, run_config.model_dump(mode="json"))
    model = run.path / "stages" / "key-2" / "model"
    shutil.copytree(tiny_model, model)
    with tokenize_server(Vllm(model)) as server:
        for named in (run.path, model):
            done = parity(named, "--endpoint", server.url)
            assert done.exit_code == 0, done.output
            assert "6 of 6" in done.output
        assert "2 of 2" in parity(run.path, "evaluation.limit=2", "--endpoint", server.url).output
    assert "belongs to no run" in error_of(parity(tiny_model, "--endpoint", server.url))
    shutil.rmtree(model)
    assert "no such model folder" in error_of(parity(run.path, "--endpoint", server.url))


def test_mistakes_are_one_line(tiny_model, config_file):
    def message(*arguments):
        return error_of(parity(tiny_model, config_file, *arguments))

    assert "--endpoint: give the address of the server" in message("--endpoint", "127.0.0.1:8000")
    with tokenize_server(Vllm(tiny_model)) as server:
        said = message("--endpoint", server.url, "--served-model", "serve")
        assert "The model `serve` does not exist" in said
        assert "did you mean 'served'?" in said
    said = message("--endpoint", server.url)
    assert "no server answers" in said


class WithoutRoute:
    def __init__(self, *models):
        self._models = models

    def models(self):
        return self._models

    def post(self, path, body):
        return 404, {"detail": "Not Found"}


class Other(WithoutRoute):
    def post(self, path, body):
        return 200, {"ids": [1]}


class Loading(WithoutRoute):
    def post(self, path, body):
        return 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


class Unauthorized(WithoutRoute):
    def post(self, path, body):
        return 401, {"error": "Unauthorized"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (WithoutRoute("m"), "the server has no route /tokenize (404 Not Found)"),
        (WithoutRoute(), "the server has no route /tokenize (404 Not Found)"),
        (WithoutRoute("a", "b"), "the server has a, b; choose one with --served-model"),
        (Other("m"), "/tokenize replies as neither vLLM nor llama.cpp does"),
        (Loading("m"), "/tokenize answers 503 Loading model; repeat the command when the server is ready"),
        (Unauthorized("m"), "answers 401"),
    ],
)
def test_servers_that_write_no_prompts_are_one_line(make, said, tiny_model, config_file):
    with tokenize_server(make) as server:
        assert said in error_of(parity(tiny_model, config_file, "--endpoint", server.url))


def test_a_key_is_sent_from_its_variable(tiny_model, config_file, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with tokenize_server(Vllm(tiny_model)) as server:
        done = parity(tiny_model, config_file, "--endpoint", server.url, "--api-key-env", "MY_KEY", "-n", "1")
    assert done.exit_code == 0, done.output
    assert set(server.keys) == {"secret"}


def test_a_row_that_the_models_own_template_refuses_is_named(tiny_model, config_file, tmp_path):
    model = tmp_path / "refusing"
    on_income = "{% if 'ncome' in messages[-1]['content'] %}" + REFUSING + "{% endif %}"
    write_with_template(tiny_model, model, TemplateSettings(CHAT + on_income))
    with tokenize_server(Vllm(tiny_model)) as server:
        said = error_of(parity(model, config_file, "--endpoint", server.url))
    assert re.match(r"decision_memos/test:\d: prompt_refused: .*no chats on Sundays", said)
