"""What servers of many makes send and refuse: read, retried, asked otherwise, or told in one line."""

import email.utils
import sys
import time

import pytest

from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.endpoint import Chat, Reply
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.endpoint.proxies import proxy_of
from sftkey_dist.endpoint.settings import check_endpoint, require_server
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.judge.voting import is_transient, may_be_of_text
from tests.chat_server import Sent, completion, scripted_server

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def endpoint(server, **settings):
    return Endpoint(EndpointConfig(url=server.url, **{"model": "m", "max_retries": 2} | settings), "none")


def ask(script, models=None, chat=Chat("s", "u"), **settings):  # noqa: B008
    """The reply to one question, and the requests that it took."""
    with scripted_server(script, models) as server:
        return endpoint(server, **settings).ask(chat), server.requests


def always(body, status=200, **headers):
    return lambda number, request: Sent(body, status, headers)


def once(body, status=200, **headers):
    return lambda number, request: Sent(body, status, headers) if number == 1 else Sent(completion("yes"))


def refusing(parameter, status, body):
    """A server that takes every request but those with a parameter."""
    return lambda number, request: Sent(body, status) if parameter in request else Sent(completion("yes"))


TEXT = {"type": "text", "text": "ye"}, {"type": "text", "text": "s"}
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (completion("yes"), "yes"),
        (completion([*TEXT]), "yes"),
        (completion([THINKING, *TEXT]), "yes"),
        (completion([{"type": "output_text", "text": "yes", "annotations": []}]), "yes"),
        (completion(["ye", "s"]), "yes"),
        (completion({"type": "text", "text": "yes"}), "yes"),
        (completion("yes", None, reasoning_content="no"), "yes"),
        (completion("yes", "eos", refusal=None, tool_calls=None, reasoning=None), "yes"),
        (completion("yes") | {"usage": None}, "yes"),
        (completion("yes") | {"usage": {"prompt_tokens": "many", "completion_tokens": None}}, "yes"),
        (completion("yes") | {"error": None}, "yes"),
    ],
)
def test_a_text_is_read_whatever_its_shape(body, text):
    reply, _ = ask(always(body))
    assert (reply.text, reply.failure) == (text, "")


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (completion(None), "empty_reply"),
        (completion(""), "empty_reply"),
        (completion([]), "empty_reply"),
        ({"choices": []}, "empty_reply"),
        ({"choices": [{"message": None, "finish_reason": "stop"}]}, "empty_reply"),
        ({"choices": [{"finish_reason": "content_filter"}]}, "filtered"),
        (completion("ye", "content_filter"), "filtered"),
        (completion(None, "SAFETY"), "filtered"),
        (completion(None, refusal="I cannot help with that."), "refused"),
        (completion([{"type": "refusal", "refusal": "no"}]), "refused"),
        (completion("", "refusal"), "refused"),
        (completion(None, "length", reasoning_content="hm"), "cut_off_at_max_tokens"),
        (completion("", "MAX_TOKENS"), "cut_off_at_max_tokens"),
        (completion("", reasoning_content="hm"), "thinking_only"),
        (completion(None, reasoning="hm"), "thinking_only"),
        (completion([THINKING]), "thinking_only"),
        (completion(None, "tool_calls", tool_calls=[{"id": "1"}]), "tool_call_only"),
        ({"choices": None}, "no_completion"),
        ({"choices": [None]}, "no_completion"),
        ("[" * 100_000, "no_completion"),
        ("data: {}\n\n", "no_completion"),
        ({"message": {"role": "assistant", "content": "yes"}, "done": True}, "no_completion"),
    ],
)
def test_a_reply_without_a_text_says_why(body, failure):
    reply, requests = ask(always(body))
    assert (reply.text, reply.failure, len(requests)) == ("", failure, 1)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_asked_again(status):
    reply, requests = ask(once({"error": {"message": "busy"}}, status, **{"Retry-After": "0"}))
    assert (reply.text, len(requests)) == ("yes", 2)


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_says_when_to_ask_again(as_date):
    started = time.time()
    wait = email.utils.formatdate(started + 3, usegmt=True) if as_date else "2"
    reply, _ = ask(once("busy", 429, **{"Retry-After": wait}))
    assert reply.text == "yes"
    assert time.time() - started >= 1.9


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Provider returned error", "code": 429}},
        {"error": {"message": "Provider returned error", "code": "502"}, "choices": None},
        {"error": {"message": "slow down", "type": "rate_limit_exceeded", "code": None}},
        {"error": {"message": "overloaded", "type": "overloaded_error"}},
        {"error": "upstream connect error"},
        {"object": "error", "message": "engine is busy", "type": "InternalServerError", "code": 500},
        [{"error": {"code": 503, "message": "try later", "status": "UNAVAILABLE"}}],
        {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 1 seconds."},
        {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "the provider hung up"}}]},
    ],
)
def test_an_error_that_comes_with_status_200_is_an_error(body):
    assert ask(once(body))[0].text == "yes"
    reply, requests = ask(always(body), max_retries=1)
    assert len(requests) == 2
    name, _, message = reply.failure.partition(": ")
    assert name in ("RateLimitError", "InternalServerError")
    assert len(message) > 5, "and what the server says is told"


def test_a_final_error_that_comes_with_status_200_is_final():
    body = {"error": {"message": "the prompt has 9000 tokens", "code": 400}}
    reply, requests = ask(always(body))
    assert (reply.failure, len(requests)) == ("BadRequestError: the prompt has 9000 tokens", 1)
    with pytest.raises(ConfigError, match="answers 401 \\(No auth credentials found\\)"):
        ask(always({"error": {"message": "No auth credentials found", "code": 401}}))


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ("<html><head><title>502 Bad Gateway</title></head></html>", "InternalServerError: 502 Bad Gateway"),
        ("<html><body><h1>oops</h1></body></html>", "InternalServerError"),
        ("upstream connect error", "InternalServerError: upstream connect error"),
        ("", "InternalServerError"),
        ({"detail": "no worker"}, "InternalServerError: no worker"),
        ({"message": "no worker\n\x1b[31mred"}, "InternalServerError: no worker [31mred"),
    ],
)
def test_what_a_server_says_is_told_in_one_line(body, failure):
    assert ask(always(body, 502), max_retries=0)[0].failure == failure


UNSUPPORTED = [
    ("max_tokens", 400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
     "Use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "unsupported_parameter"}}),
    ("temperature", 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model. "
     "Only the default (1) value is supported.", "param": "temperature", "code": "unsupported_value"}}),
    ("temperature", 400, {"error": {"message": "litellm.UnsupportedParamsError: m does not support parameters: "
     "['temperature'], for model=m.", "type": None, "param": None, "code": "400"}}),
    ("temperature", 400, [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name "
     "\"temperature\": Cannot find field.", "status": "INVALID_ARGUMENT"}}]),
    ("temperature", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"],
     "msg": "Extra inputs are not permitted", "input": 0}]}),
    ("temperature", 422, {"error": "Input validation error: `temperature` must be strictly positive",
     "error_type": "validation"}),
    ("max_tokens", 422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]}),
    ("temperature", 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"x": 1,
     "raw": "{\"error\": {\"message\": \"Unsupported parameter: 'temperature'\"}}"}}}),
    ("temperature", 500, {"error": {"code": 500, "message": "Unsupported param: temperature", "type": "server_error"}}),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "status", "body"), UNSUPPORTED)
def test_what_a_server_does_not_take_is_left_out_or_renamed_and_that_is_remembered(parameter, status, body, capsys):
    with scripted_server(refusing(parameter, status, body)) as server:
        client = endpoint(server, max_retries=0, max_tokens=77)
        assert client.ask(Chat("s", "u")).text == "yes"
        assert client.ask(Chat("s", "v")).text == "yes"
    assert [parameter in request for request in server.requests] == [True, False, False]
    assert parameter != "max_tokens" or server.requests[-1]["max_completion_tokens"] == 77
    (note,) = client.notes
    assert parameter in note
    assert capsys.readouterr().err.count(note) == 1, "it is said once"


def test_a_server_may_refuse_several_parameters_and_both_names_of_one():
    def script(number, request):
        refused = [n for n in ("temperature", "max_tokens", "max_completion_tokens") if n in request]
        message = f"Unrecognized request argument supplied: {refused[0]}" if refused else ""
        return Sent({"error": {"message": message}}, 400) if refused else Sent(completion("yes"))

    reply, requests = ask(script)
    assert (reply.text, len(requests), sorted(requests[-1])) == ("yes", 4, ["messages", "model"])


def test_a_value_that_is_too_large_is_no_parameter_that_is_not_taken():
    message = "'max_tokens' is too large: 2048. This model's maximum context length is 4096 tokens."
    reply, requests = ask(always({"error": {"message": message, "param": "max_tokens"}}, 400))
    assert (reply.failure, len(requests)) == (f"BadRequestError: {message}", 1)


def test_a_refusal_that_only_quotes_a_parameter_changes_nothing_for_the_questions_after_it():
    def script(number, request):
        is_bad = "temperature" in request["messages"][-1]["content"]
        return (
            Sent({"error": {"message": "cannot parse 'what temperature is it'"}}, 400)
            if is_bad
            else Sent(completion("yes"))
        )

    with scripted_server(script) as server:
        client = endpoint(server)
        assert client.ask(Chat("s", "what temperature is it")).failure.startswith("BadRequestError: cannot parse")
        assert client.ask(Chat("s", "u")).text == "yes"
    assert "temperature" in server.requests[-1]
    assert client.notes == ()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "System role not supported"),
        (500, "System role not supported"),
        (400, "Developer instruction is not enabled for models/m"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    ],
)
def test_a_model_without_system_messages_reads_the_text_in_the_users(status, message):
    def script(number, request):
        has_system = request["messages"][0]["role"] == "system"
        return Sent({"error": {"message": message}}, status) if has_system else Sent(completion("yes"))

    reply, requests = ask(script, max_retries=0)
    assert reply.text == "yes"
    assert requests[-1]["messages"] == [{"role": "user", "content": "s\n\nu"}]


def test_an_empty_system_message_is_not_sent():
    _, (request,) = ask(always(completion("yes")), chat=Chat("", "u"))
    assert request["messages"] == [{"role": "user", "content": "u"}]


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_firewall_that_refuses_one_text_fails_that_text_once_others_were_answered(status):
    page = "<html><title>Attention Required! | Cloudflare</title></html>"

    def guarded(number, request):
        return Sent(page, status) if "UNION SELECT" in str(request) else Sent(completion("yes"))

    with scripted_server(guarded) as server:
        client = endpoint(server, model="llama", max_retries=0)
        with pytest.raises(ConfigError, match=f"answers {status}"):
            client.ask(Chat("", "UNION SELECT"))
        assert client.ask(Chat("", "and now?")).text == "yes"
        failure = client.ask(Chat("", "UNION SELECT")).failure
    assert failure == f"HTTP {status}: Attention Required! | Cloudflare"
    assert may_be_of_text(failure), "the judge is asked with the reference in its place"
    assert is_transient(failure), "and if that fails too, the answer stays open"


def _message_of(call) -> str:
    try:
        return str(call())
    except ConfigError as error:
        return str(error)


def test_no_reply_quotes_the_key():
    quoted = {"error": {"message": "Authentication failed. Received API Key = sk-secret-1"}}
    for status in (400, 401):
        with scripted_server(always(quoted, status)) as server:
            client = Endpoint(EndpointConfig(url=server.url, model="llama", max_retries=0), "sk-secret-1")
            said = _message_of(lambda client=client: client.ask(Chat("", "?")).failure)
            said += _message_of(lambda client=client, url=server.url: client.call(f"{url}/tokenize", {}))
        assert "sk-secret-1" not in said
        assert said.count("[key]") == 2


@pytest.mark.parametrize("body", [{"error": {"message": "no access"}}, "<html></html>", ""])
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_the_asking(status, body):
    with pytest.raises(ConfigError, match=f"answers {status}.*check the model 'm' and the key"):
        ask(always(body, status))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "The model `lama-3` does not exist."),
        (404, "model 'lama-3' not found, try pulling it first"),
        (400, "Invalid model name passed in model=lama-3. Call `/v1/models` to view available models for your key."),
        (400, "lama-3 is not a valid model ID"),
    ],
)
def test_a_model_that_the_server_does_not_have_ends_the_asking_and_those_that_it_has_are_named(status, message):
    with pytest.raises(ConfigError, match=r"the server has llama-3, qwen; did you mean 'llama-3'\?"):
        ask(always({"error": {"message": message}}, status), models=["llama-3", "qwen"], model="lama-3")


def test_a_wrong_path_is_told_from_a_wrong_model():
    with pytest.raises(ConfigError, match="the server has the model 'm'; check the URL"):
        ask(always({"detail": "Not Found"}, 404), models=["m"])
    with pytest.raises(ConfigError, match="answers 405"):
        ask(always("", 405))


@pytest.mark.parametrize(
    ("status", "error", "failure"),
    [
        (402, {"message": "Insufficient credits"}, "out_of_quota"),
        (429, {"message": "You exceeded your current quota.", "code": "insufficient_quota"}, "out_of_quota"),
        (400, {"message": "The response was filtered", "code": "content_filter"}, "filtered"),
        (403, {"message": "Your input was flagged", "code": 403, "metadata": {"reasons": ["x"]}}, "filtered"),
        (413, {"message": "payload too large"}, "HTTP 413"),
    ],
)
def test_what_asking_again_would_not_change_is_asked_once_and_named(status, error, failure):
    reply, requests = ask(always({"error": error}, status))
    assert (reply.failure, len(requests)) == (f"{failure}: {error['message']}", 1)


def test_a_key_that_a_server_repeats_is_not_told():
    with scripted_server(always({"error": {"message": "bad key sk-secret"}}, 400)) as server:
        reply = Endpoint(EndpointConfig(url=server.url, model="m"), "sk-secret").ask(Chat("", "u"))
    assert reply.failure == "BadRequestError: bad key [key]"


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x"])
def test_this_machine_is_reached_without_a_proxy(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert ask(always(completion("yes")))[0].text == "yes"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:127.0.0.1]", "a.localhost"])
def test_every_name_of_this_machine_is_known(host, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert proxy_of(f"http://{host}:8000/v1") is None
    assert str(proxy_of("http://judge:8000/v1")) == "http://proxy:3128"


def test_the_proxy_is_the_schemes_or_the_one_for_all_unless_the_host_is_exempt(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "me:secret@everywhere:1080")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example,judge:8000")
    found = [proxy_of(f"{url}/v1") for url in ("http://judge", "https://judge", "http://a.inside.example")]
    assert [str(proxy) for proxy in found] == ["http://everywhere:1080", "http://secure:3128", "None"]
    assert found[0].variable == "ALL_PROXY"
    assert proxy_of("http://judge:8000/v1") is None


def test_a_proxy_that_does_not_answer_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    config = EndpointConfig(url="http://judge.example/v1", model="m", max_retries=0)
    with pytest.raises(ConfigError, match=r"through the proxy http://127.0.0.1:9 that HTTP_PROXY names") as raised:
        require_server(config, Endpoint(config, "none").ask(Chat("", "u")))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "said"), [("socks5://proxy:1080", "package socksio"), ("gopher://proxy", "cannot be used")]
)
def test_a_proxy_that_cannot_be_used_is_one_line(value, said, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", value)
    if "socks" in value:
        monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ConfigError, match=said):
        check_endpoint(EndpointConfig(url="http://judge.example/v1", model="m"))


def test_a_server_that_does_not_answer_says_why():
    with pytest.raises(ConfigError, match=r"no server answers .*onnection refused"):
        require_server(EndpointConfig(url="http://127.0.0.1:9/v1", model="m"), Reply(failure=_refused()))


def _refused():
    config = EndpointConfig(url="http://127.0.0.1:9/v1", model="m", max_retries=0)
    return Endpoint(config, "none").ask(Chat("", "u")).failure
