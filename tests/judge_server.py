"""A judge on loopback that speaks the chat-completions protocol, in a process of its own, with faults on demand.

``python -m tests.judge_server --latency-ms 200 --share-429 0.1`` prints its port. It rules by what it finds where the
package's template puts reference and answer: equal texts are correct, so every verdict can be checked. ``GET /counts``
tells what it was asked and what it did.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

_REFERENCE = re.compile(r'Reference answer:\n(".*")$', re.MULTILINE)
_ANSWER = re.compile(r'<candidate_answer>\n(".*")\n</candidate_answer>')


_FAULTS = ("429", "500", "hang", "garbage", "error")


@dataclass
class RunningJudge:
    """What a test sees of it."""

    url: str
    process: subprocess.Popen

    def counts(self) -> Counter[str]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/counts", timeout=10) as reply:
            return Counter(json.load(reply))


@contextmanager
def judge_server(host: str = "127.0.0.1", **options: float | str) -> Iterator[RunningJudge]:
    """Run one while the block lasts; options as on the command line, with underscores."""
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.judge_server", "--host", host, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield RunningJudge(f"http://{host}:{int(process.stdout.readline())}/v1", process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    for fault in _FAULTS:
        parser.add_argument(f"--share-{fault}", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--refuses", default="", help="A parameter that it does not take.")
    parser.add_argument("--before", default="", help="What it writes before each ruling.")
    parser.add_argument("--writes", default="<Thinking>t</Thinking><Answer>review</Answer>")
    parser.add_argument("--die-after", type=int, default=0, help="Answer 500 to everything after so many requests.")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    counts: Counter[str] = Counter()
    faults = random.Random(options.seed)

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        counts["requests"] += 1
        number = counts["requests"]
        kind = _draw(faults, options) if not options.die_after or number <= options.die_after else "500"
        counts[kind] += 1
        await asyncio.sleep(options.latency_ms / 1000 if kind != "hang" else 3600)
        if kind == "429":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
        if kind == "500":
            return web.json_response({"error": {"message": "broken"}}, status=500)
        if kind == "error":
            return web.json_response({"error": {"message": "the provider is busy", "code": 503}})
        if options.refuses in body:
            counts["refused"] += 1
            return web.json_response({"error": {"message": f"unknown parameter {options.refuses}"}}, status=400)
        if kind == "garbage":
            return web.json_response(_completion(body, 'The verdict is {"verdict": "correct"}, I think.'))
        return web.json_response(_completion(body, options.before + _rule(body["messages"])))

    async def write(request: web.Request) -> web.Response:
        """Stands for a model that was trained: what it writes is always the same."""
        body = await request.json()
        counts["written"] += 1
        assert all(isinstance(token, int) for token in body["prompt"]), "a prompt comes as token ids"
        choice = {"index": 0, "text": options.writes, "finish_reason": "stop", "logprobs": None}
        return web.json_response(_completion(body, "") | {"object": "text_completion", "choices": [choice]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", complete)
    application.router.add_post("/v1/completions", write)
    application.router.add_get("/counts", lambda request: _counts(counts))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def _counts(counts: Counter[str]) -> web.Response:
    return web.json_response(dict(counts))


def _draw(faults: random.Random, options: argparse.Namespace) -> str:
    drawn = faults.random()
    for kind in _FAULTS:
        drawn -= getattr(options, f"share_{kind}")
        if drawn < 0:
            return kind
    return "answered"


def _rule(messages: list[dict[str, str]]) -> str:
    user = messages[-1]["content"]
    if "<candidate_explanation>" in user:
        return json.dumps({"rating": 4, "reason": "a small gap"})
    reference, answer = _REFERENCE.search(user), _ANSWER.search(user)
    if not reference or not answer:
        return "I see no answer."
    same = json.loads(reference.group(1)) == json.loads(answer.group(1))
    return json.dumps({"verdict": "correct" if same else "incorrect", "reason": "compared as text"})


def _completion(body: dict, content: str) -> dict:
    message = {"role": "assistant", "content": content}
    return {
        "id": "chat",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


if __name__ == "__main__":
    main()
