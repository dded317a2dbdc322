"""An OpenAI-compatible server that generates with a model token by token, and constrains responses as servers do.

It shares nothing with the package but the tokenizer: prompts come as token ids or are written by the chat template, and
the constraint is what the request or the model's folder says.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.chat_server import ChatServer, Sent, completion, scripted_server


class TokenByToken:
    """A model that generates one prompt at a time, greedily, with or without a grammar."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokens = from_tokenizer(self.tokenizer)

    def generate(self, ids: list[int], max_tokens: int, grammar: str | None) -> tuple[str, str]:
        """The text and why it ends."""
        matcher = LLMatcher(self._tokens, grammar) if grammar else None
        new: list[int] = []
        while len(new) < max_tokens:
            with torch.no_grad():
                logits = self._model(input_ids=torch.tensor([ids + new])).logits[0, -1]
            if matcher is not None:
                allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
                logits[allowed[: len(logits)] == 0] = -torch.inf
            new.append(int(logits.argmax()))
            if matcher is not None:
                assert matcher.consume_token(new[-1])
            if new[-1] == self.tokenizer.eos_token_id:
                return self.tokenizer.decode(new[:-1]), "stop"
        return self.tokenizer.decode(new), "length"

    def answer(self, body: Mapping[str, Any], knows: frozenset[str]) -> Sent:
        """The completion of a request, which is constrained by those fields that the server knows."""
        if "messages" in body:
            ids = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        else:
            ids = body["prompt"]
        text, reason = self.generate(list(ids), body["max_tokens"], self._grammar(body, knows))
        answer = completion(text, reason)
        if "prompt" in body:
            answer["choices"] = [{"index": 0, "text": text, "finish_reason": reason}]
        return Sent(answer)

    def _grammar(self, body: Mapping[str, Any], knows: frozenset[str]) -> str | None:
        if "structured_outputs" in knows & body.keys():
            return str(body["structured_outputs"]["grammar"])
        if "response_format" in knows & body.keys():
            schema = json.loads((self.folder / "response_schema.json").read_text())
            assert body["response_format"]["json_schema"]["schema"] == schema, "what is asked for lies beside the model"
            return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        return None


@contextmanager
def model_server(folder: Path, knows: frozenset[str]) -> Iterator[ChatServer]:
    """Serve a model folder while the block lasts.

    Args:
        folder: the folder, with a response_schema.json if the server knows `response_format`.
        knows: fields that constrain responses; others are ignored, as many servers do.
    """
    model = TokenByToken(folder)
    with scripted_server(lambda number, body: model.answer(body, knows)) as state:
        yield state
