"""`transformers serve`, a real OpenAI-compatible server with a real model, as a judge and as the one that generates."""

import os
import subprocess
import sys
import time
import urllib.request

import pytest

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import ServedModelConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.endpoint.tokenizing import find_tokenizer
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.generation import Decoding
from sftkey_dist.evaluation.generation.local import LocalGenerator
from sftkey_dist.evaluation.generation.served import ServedGenerator
from sftkey_dist.evaluation.judge.reading import read_verdict
from sftkey_dist.evaluation.judge.served import ask_until_readable
from sftkey_dist.evaluation.judge.template import Question, load_template
from tests.distributed.harness import free_port


@pytest.fixture(scope="module")
def server(tiny_model):
    port = free_port()
    command = ["from transformers.cli.transformers import main; main()", "serve", str(tiny_model)]
    process = subprocess.Popen(
        [sys.executable, "-c", *command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(process, url):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the server did not start")


def test_a_served_model_generates_what_it_generates_here(server, tiny_model, memos):
    config = ServedModelConfig(url=server, model=str(tiny_model), api="chat", concurrency=2)
    served = ServedGenerator(config, "none", tiny_model, PromptConfig(), False).generate(memos[:4], Decoding(8))
    here = LocalGenerator(tiny_model, PromptConfig(), False).generate(memos[:4], Decoding(8))
    assert [samples[0].text.strip() for samples in served] == [samples[0].text.strip() for samples in here]


def test_transformers_serve_has_no_tokenize_route(server, tiny_model):
    config = EndpointConfig(url=server, model=str(tiny_model))
    with pytest.raises(ConfigError, match=r"the server has no route /tokenize \(404 Not Found\)"):
        find_tokenizer(config, Endpoint(config, "none"))


NO_VERDICT = ("", "empty_reply", "cut_off_at_max_tokens")


def test_a_served_model_that_was_never_trained_gives_no_verdict(server, tiny_model):
    endpoint = Endpoint(EndpointConfig(url=server, model=str(tiny_model), max_tokens=8), "none")
    chat = load_template("equivalence").chat(Question("What is 6 x 7?", "42", "forty-two"))

    def ask():
        reply = endpoint.ask(chat)
        assert reply.failure in NO_VERDICT
        return reply.text, reply.failure

    assert ask_until_readable(ask, read_verdict).failure in (*NO_VERDICT[1:], "unreadable_reply")
