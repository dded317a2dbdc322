"""Whom a key goes to, and how fast questions follow each other."""

import time

import pytest

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.endpoint import Chat, Pace, endpoint_key
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.errors import ConfigError
from tests.chat_server import chat_server


def test_openais_key_goes_to_openai_and_any_other_only_where_the_configuration_says(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    monkeypatch.setenv("MY_KEY", "of-mine")
    with chat_server(lambda messages: "yes") as server:
        for variable, key in ((None, "none"), ("MY_KEY", "of-mine")):
            config = EndpointConfig(url=server.url, model="m", api_key_env=variable)
            assert Endpoint(config, endpoint_key(config)).ask(Chat("", "?")).text == "yes"
            assert server.keys[-1] == key
    assert endpoint_key(EndpointConfig(url="https://api.openai.com/v1", model="m")) == "of-openai"
    monkeypatch.setenv("MY_KEY", "sch\u00f6n")
    with pytest.raises(ConfigError, match="MY_KEY"):
        endpoint_key(config)


@pytest.mark.parametrize("body", ["[]", "{}", '{"choices": [{"message": null}]}', "<html>", "7"])
def test_whatever_a_server_says_is_a_reply_or_a_failure(body):
    with chat_server(lambda messages: "", body=body) as server:
        config = EndpointConfig(url=server.url, model="m")
        assert Endpoint(config, "none").ask(Chat("", "?")).failure == "no_completion"


def test_a_chat_server_that_filters_an_answer_away_is_still_a_chat_server():
    with chat_server(lambda messages: "", body='{"choices": []}') as server:
        config = EndpointConfig(url=server.url, model="m")
        (reply,) = Endpoint(config, "none").ask_all([Chat("", "?")])
        assert reply.failure == "empty_reply"


def test_a_rate_spaces_requests_evenly():
    pace, started = Pace(requests_per_minute=600), time.monotonic()
    for _ in range(4):
        pace.wait()
    assert 0.3 <= time.monotonic() - started < 3
