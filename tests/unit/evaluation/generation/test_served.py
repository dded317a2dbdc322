"""What a generating server must do so that its responses are those of the model that was trained."""

from types import SimpleNamespace

import pytest

from sftkey_dist.config.evaluation import EvaluationConfig, ServedModelConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.example import Example
from sftkey_dist.errors import ConfigError, IncompleteEvaluationError
from sftkey_dist.evaluation.generation.decoding import Decoding
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool
from sftkey_dist.evaluation.generation.served import ServedGenerator
from tests.chat_server import Sent, completion, scripted_server

PROMPTS = [Example(f"q{number}", "Two and two?", {"answer": "four"}, data_set="sums") for number in range(40)]


def served(url, folder) -> ServedGenerator:
    server = ServedModelConfig(url=url, model="m", api="chat", max_retries=0, concurrency=2)
    return ServedGenerator(server, "none", folder, PromptConfig(), False)


def test_a_server_that_takes_thinking_out_of_responses_is_refused(tiny_model):
    with scripted_server(lambda number, request: Sent(completion("four", reasoning_content="Hm."))) as server:
        with pytest.raises(ConfigError, match=r"thinking apart from the response.*without a reasoning parser"):
            served(server.url, tiny_model).generate(PROMPTS, Decoding(8))
        assert len(server.requests) == 1
    with scripted_server(lambda number, request: Sent(completion("four", reasoning_content=None))) as server:
        (first, *_) = served(server.url, tiny_model).generate(PROMPTS, Decoding(8))
    assert first[0].text == "four"


def test_where_no_server_answers_one_prompt_is_sent(tiny_model):
    with pytest.raises(ConfigError, match="no server answers"):
        served("http://127.0.0.1:9/v1", tiny_model).generate(PROMPTS, Decoding(8))


@pytest.mark.parametrize(
    ("failure", "chunks", "said"),
    [
        ("APIConnectionError", 1, "none of 8 prompts in a row reached the server, .*down.* the server answers"),
        ("APITimeoutError", 5, "40 of 40 prompts got no response"),  # of prompts that are long, others may be answered
    ],
)
def test_no_more_prompts_are_sent_to_a_server_that_is_gone(tmp_path, failure, chunks, said):
    pool, sent = object.__new__(EvaluationPool), []

    def results(call, chunks):
        for chunk in chunks:
            sent.append(chunk)
            yield [], [f"{failure}: down"] * len(chunk)

    pool.results = results
    job = SimpleNamespace(settings=EvaluationConfig(batch_size=8))
    with pytest.raises(IncompleteEvaluationError, match=said):
        pool.generate(job, PROMPTS, tmp_path, lambda done: None)
    assert len(sent) == chunks
