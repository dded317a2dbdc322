"""A chat-completions server on loopback whose replies a test writes; it speaks the protocol over real HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


@contextmanager
def chat_server(reply: Callable[[list[dict[str, str]]], str], body: str | None = None) -> Iterator[ChatServer]:
    """Serve ``POST /v1/chat/completions`` while the block lasts.

    ``reply`` makes an answer of the messages; with ``body`` every answer is that text instead.
    """
    raw = body
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body)
            state.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
            status = state.failures.pop(0) if state.failures else 200
            if status == DROP_CONNECTION:
                self.close_connection = True
                return
            message = {"role": "assistant", "content": reply(body["messages"])}
            content = {
                "id": "chat",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            data = json.dumps(content if status == 200 else {"error": {"message": "no"}}).encode()
            data = data if raw is None else raw.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
