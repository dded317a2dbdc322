"""Servers on loopback that tokenize as vLLM and llama.cpp do, with the tokenizer and the chat template of a folder.

Requests and replies have the shapes of vLLM's `/tokenize` and of llama.cpp's `/apply-template` and `/tokenize`. Texts
and ids come from `transformers`.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import transformers
from jinja2 import TemplateError

from tests.loopback import serving

Reply = tuple[int, Any]


@dataclass
class TokenizeServer:
    """What a test sees of the server.

    Attributes:
        url: base URL for clients.
        requests: path and body of every POST, in order of arrival.
        keys: the key of every POST.
    """

    url: str = ""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


class Vllm:
    """vLLM with one model."""

    def __init__(self, folder: Path, chat_template: str | None = None, model: str = "served") -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._tokenizer.chat_template = chat_template or self._tokenizer.chat_template
        self._model = model

    def models(self) -> list[str]:
        return [self._model]

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        if path != "/tokenize":
            return 404, {"detail": "Not Found"}
        if body.get("model", self._model) != self._model:
            message = f"The model `{body['model']}` does not exist."
            return 404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}
        try:
            ids = self._ids(body)
        except (TemplateError, TypeError) as error:
            return 400, {"error": {"message": str(error), "type": "BadRequestError", "param": None, "code": 400}}
        return 200, {"count": len(ids), "max_model_len": 4096, "tokens": ids, "token_strs": None}

    def _ids(self, body: dict[str, Any]) -> list[int]:
        if "messages" not in body:
            return self._tokenizer(body["prompt"], add_special_tokens=body.get("add_special_tokens", True))["input_ids"]
        return self._tokenizer(self._text(body), add_special_tokens=body.get("add_special_tokens", False))["input_ids"]

    def _text(self, body: dict[str, Any]) -> str:
        return self._tokenizer.apply_chat_template(
            [_for_template(message) for message in body["messages"]],
            tools=body.get("tools"),
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            **(body.get("chat_template_kwargs") or {}),
        )


def _for_template(message: dict[str, Any]) -> dict[str, Any]:
    """Both servers give templates the arguments of a call as a mapping."""
    if "tool_calls" not in message:
        return message
    functions = [call["function"] for call in message["tool_calls"]]
    read = [function | {"arguments": json.loads(function["arguments"])} for function in functions]
    return message | {"tool_calls": [{"type": "function", "function": function} for function in read]}


class LlamaCpp(Vllm):
    """llama.cpp, which loads one model and does not look at the name in a request."""

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        if path == "/tokenize":
            if "content" not in body:
                return 200, {"tokens": []}
            add_special = body.get("add_special", False)
            return 200, {"tokens": self._tokenizer(body["content"], add_special_tokens=add_special)["input_ids"]}
        if path != "/apply-template":
            return 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
        try:
            prompt = self._text(body)
        except TemplateError as error:
            return 500, {"error": {"code": 500, "message": str(error), "type": "server_error"}}
        return 200, {"prompt": prompt.removeprefix(self._tokenizer.bos_token or "")}


@contextmanager
def tokenize_server(make: Any) -> Iterator[TokenizeServer]:
    """Serve a `Vllm`, or anything with its two methods, while the block lasts."""
    state, lock = TokenizeServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:  # a fast tokenizer is not made for several threads
                state.requests.append((self.path, body))
                state.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
                status, reply = make.post(self.path, body)
            self._send(status, reply)

        def do_GET(self) -> None:
            known = self.path == "/v1/models"
            self._send(200 if known else 404, {"data": [{"id": name} for name in make.models()] if known else []})

        def _send(self, status: int, reply: Any) -> None:
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as state.url:
        yield state
