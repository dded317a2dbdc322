"""Chat-completions servers on loopback whose replies a test writes; they speak the protocol over real HTTP."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import serving

DROP_CONNECTION = 0


@dataclass
class ChatServer:
    """What a test sees of the server.

    Attributes:
        url: base URL for clients.
        requests: bodies of the requests, in order of arrival.
        keys: what each request gave as its key.
        failures: statuses to answer the next requests with; ``DROP_CONNECTION`` answers nothing.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sent:
    """What a server sends: JSON, or text as it stands."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[int, dict[str, Any]], Sent | None]
"""What to send for a request, by its number from 1 and its body; None drops the connection."""


def completion(content: Any, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion with one choice."""
    said = {"role": "assistant", "content": content, **message}
    return {
        "id": "chat",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}],
    }


@contextmanager
def scripted_server(script: Script, models: Sequence[str] | None = None) -> Iterator[ChatServer]:
    """Serve every POST by a script while the block lasts, and the list of ``models`` where there is one."""
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body)
            state.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
            sent = script(len(state.requests), body)
            if sent is None:
                self.close_connection = True
            else:
                self._send(sent)

        def do_GET(self) -> None:
            known = models is not None and self.path == "/v1/models"
            self._send(Sent({"data": [{"id": name} for name in models or ()]}, 200 if known else 404))

        def _send(self, sent: Sent) -> None:
            data = (sent.body if isinstance(sent.body, str) else json.dumps(sent.body)).encode()
            kind = "text/html" if isinstance(sent.body, str) else "application/json"
            self.send_response(sent.status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **sent.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as state.url:
        yield state


@contextmanager
def chat_server(reply: Callable[[list[dict[str, str]]], str], body: str | None = None) -> Iterator[ChatServer]:
    """Answer chats while the block lasts, after the failures that a test asks for.

    ``reply`` makes an answer of the messages; with ``body`` every answer is that text instead.
    """

    def script(number: int, request: dict[str, Any]) -> Sent | None:
        status = state.failures.pop(0) if state.failures else 200
        if status == DROP_CONNECTION:
            return None
        said = reply(request["messages"])
        content = completion(said) if status == 200 else {"error": {"message": "no"}}
        return Sent(content if body is None else body, status, {"Retry-After": "0"} if status == 429 else {})

    with scripted_server(script) as state:
        yield state
