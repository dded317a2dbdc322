"""Encodes prompts, for training and generation alike, and finds the token that ends a turn."""

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Piece
from sftkey_dist.data.adapters.tools import as_sent
from sftkey_dist.data.encoding.shown import hidden_parts
from sftkey_dist.data.encoding.thinking import continuing
from sftkey_dist.data.encoding.tokens import encode_texts, encode_without_special
from sftkey_dist.data.example import ARGUMENTS_COLUMN, Example, Turn
from sftkey_dist.errors import ModelError
from sftkey_dist.models.chat_template import chat_templates, reads_clock, unused_argument, variables_of, with_date
from sftkey_dist.models.vocabulary import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "@@response@@"
_MESSAGE = re.compile(r"@@message-(\d+)@@")


class PromptError(ValueError):
    """Raised if the template does not accept a conversation."""


class PromptEncoder:
    """Writes prompts with the tokenizer's chat template or with a plain template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", config: PromptConfig) -> None:
        """
        Raises:
            ModelError: A chat template is requested but missing, it refuses a message, or no token ends a turn.
        """
        has_chat_template = bool(getattr(tokenizer, "chat_template", None))
        if config.template == "chat" and not has_chat_template:
            raise ModelError("prompt.template=chat, but the tokenizer has no chat template; use prompt.template=plain")
        self._tokenizer = tokenizer
        self._config = config
        self.uses_chat = has_chat_template and config.template != "plain"
        """Whether the tokenizer's chat template writes the prompts."""
        template = _chat_template(tokenizer) if self.uses_chat else ""
        self.date = (config.date or datetime.date.today()) if reads_clock(template) else None
        """Date that the chat template prints; None if it prints none or contains a fixed date."""
        self._template = with_date(template, self.date) if self.date else template
        self.special_tokens: Mapping[int, str] = special_tokens(tokenizer)
        """Id and text of every special token."""
        self._first_characters = {text[0] for text in self.special_tokens.values() if text}
        self.end_of_turn_id = self._find_end_of_turn()

    def text(self, example: Example) -> str:
        """The prompt as the model reads it, up to the start of the response.

        Raises:
            PromptError: The template does not accept this conversation.
        """
        if self.uses_chat:
            return self._conversation(example)
        if example.history or example.tool_turns or example.tools:
            raise PromptError("a conversation of several turns needs a tokenizer with a chat template")
        if example.template_arguments:
            raise PromptError(f"{ARGUMENTS_COLUMN} needs a tokenizer with a chat template")
        return self._config.plain.replace("{prompt}", example.prompt)

    def continued(self, prompt: str, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces of a response as they continue a prompt from `text`.

        Raises:
            ContractError: See `continuing`.
        """
        return continuing(prompt, pieces) if self.uses_chat else list(pieces)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts from `text`. A chat template contains its own special tokens; a plain prompt gets BOS."""
        encoded = encode_texts(self._tokenizer, texts, add_special_tokens=not self.uses_chat)
        return [self._without_eos(ids) for ids in encoded]

    def ids_of_quoted(self, example: Example) -> list[int]:
        """Token ids of a chat whose messages contain untrusted text, none of which is encoded as a special token.

        If the ordinary encoding contains no special tokens except the template's, it is returned. Otherwise the
        messages are encoded separately from the text that the template writes around them.

        Raises:
            PromptError: The template does not accept this conversation, or does not contain its messages unchanged.
        """
        (ids,) = self.ids([self.text(example)])
        messages = [turn.message for turn in self._turns(example)]
        probes = [message | {"content": f"@@message-{number}@@"} for number, message in enumerate(messages)]
        pieces = _MESSAGE.split(self._chat(probes, True))
        frame, places = pieces[::2], list(map(int, pieces[1::2]))
        around = encode_texts(self._tokenizer, frame, add_special_tokens=False)
        if self._special_among(ids) == [token_id for part in around for token_id in self._special_among(part)]:
            return ids
        if sorted(places) != list(range(len(messages))):
            raise PromptError("the tokenizer's chat template does not show each message once, as it is")
        quoted = encode_without_special(self._tokenizer, [str(messages[place]["content"]) for place in places])
        parts = zip(quoted, around[1:], strict=True)
        return [*around[0], *(token_id for pair in parts for part in pair for token_id in part)]

    def _special_among(self, ids: Sequence[int]) -> list[int]:
        return [token_id for token_id in ids if token_id in self.special_tokens]

    def _without_eos(self, ids: list[int]) -> list[int]:
        eos = self._tokenizer.eos_token_id
        return ids[:-1] if not self.uses_chat and ids and ids[-1] == eos else ids

    def messages(self, example: Example) -> list[dict[str, object]]:
        """The messages of a conversation. A system message in the row takes precedence over the configured one."""
        return [turn.message for turn in self._turns(example)]

    def request(self, example: Example) -> tuple[list[dict[str, object]], dict[str, object]]:
        """The messages that make a server write this prompt, and what else the request for it contains."""
        # The server must not read calls of tools itself: the contract does, so they have to come back as text.
        tools = {"tools": list(example.tools), "tool_choice": "none"} if example.tools else {}
        # Servers of Hugging Face models take a template's arguments under this name; others are sent none.
        arguments = {ARGUMENTS_COLUMN: dict(example.template_arguments)} if example.template_arguments else {}
        return [as_sent(message) for message in self.messages(example)], {**tools, **arguments}

    def _turns(self, example: Example) -> list[Turn]:
        has_own = bool(example.history) and example.history[0].role == "system"
        system = [Turn("system", self._config.system)] if self._config.system and not has_own else []
        return [*system, *example.turns]

    def special_ids(self, tokens: Collection[str] = ()) -> set[int]:
        """Ids of the special tokens in every prompt and response, and of those in ``tokens``, which occur in the
        data."""
        (ids,) = self.ids([self.text(Example("", "question", {}))])
        of_rows = {token_id for token_id, text in self.special_tokens.items() if text in tokens}
        return {self.end_of_turn_id, *(self.special_tokens.keys() & set(ids)), *of_rows}

    def special_tokens_in(self, example: Example) -> list[str]:
        """Special tokens whose text occurs in a row's own prompt; the model reads them as tokens, not as text."""
        texts = [turn.content for turn in example.turns]
        return [
            token
            for text in texts
            if any(character in text for character in self._first_characters)
            for token in self.special_tokens.values()
            if token and token in text
        ]

    def _conversation(self, example: Example) -> str:
        """The prompt of a chat, in which the template must show everything that a server would send it."""
        tools = {"tools": [dict(tool) for tool in example.tools]} if example.tools else {}
        turns = self._turns(example)
        rendered = self._chat([turn.message for turn in turns], True, {**self._arguments_of(example), **tools})
        hidden = next(hidden_parts(rendered, turns, example.tools), None)
        if hidden is not None:
            raise PromptError(f"the chat template does not show {hidden}; see prompt.chat_template")
        return rendered

    def _arguments_of(self, example: Example) -> Mapping[str, object]:
        """The arguments of a row."""
        unused = unused_argument(self._variables, example.template_arguments) if example.template_arguments else ""
        if unused:
            raise PromptError(f"{ARGUMENTS_COLUMN}: {unused}")
        return example.template_arguments

    @cached_property
    def _variables(self) -> frozenset[str]:
        return variables_of(self._template)

    def _chat(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool,
        arguments: Mapping[str, object] = MappingProxyType({}),
    ) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **arguments,
                )
            )
        except Exception as error:  # a template is a program and can raise anything
            raise PromptError(f"the tokenizer's chat template refuses it: {error}") from error

    def _find_end_of_turn(self) -> int:
        """The special token that the chat template writes after a response, or else the tokenizer's EOS token."""
        if self.uses_chat:
            ids = self._tokenizer(self._after_response().strip(), add_special_tokens=False)["input_ids"]
            special = [token_id for token_id in ids if token_id in self.special_tokens]
            if special:
                return int(special[0])
        if self._tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end-of-sequence token, so a response could never end; set one")
        return int(self._tokenizer.eos_token_id)

    def _after_response(self) -> str:
        """The text that the chat template writes after a response."""
        turns = [*self._turns(Example("", "question", {})), Turn("assistant", _PROBE)]
        try:
            rendered = self._chat([turn.message for turn in turns], False)
        except PromptError as error:
            raise ModelError(f"{error}; see prompt.system and prompt.template") from error
        _, probe, after = rendered.rpartition(_PROBE)
        if not probe:
            raise ModelError(
                f"the tokenizer's chat template does not contain the assistant's message, so the end of a response "
                f"cannot be found: for {_PROBE!r} it writes {rendered[-100:]!r}; correct the template in the model's "
                f"folder, or use prompt.template=plain"
            )
        return after


def _chat_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # there are several, and none is the default
        raise ModelError(
            f"the tokenizer has chat templates {', '.join(chat_templates(tokenizer))}, but none is named 'default'; "
            f"rename one in the model's folder, or use prompt.template=plain"
        ) from error
