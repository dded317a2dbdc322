"""The prompt's token ids, written once for training and generation, and the token that ends a turn."""

from typing import Any

import jinja2

from sftkey_dist.config.schema import PromptConfig
from sftkey_dist.errors import ModelError

_PROBE = "@@response@@"


class PromptEncoder:
    """Writes prompts by the tokenizer's chat template or by a plain template."""

    def __init__(self, tokenizer: Any, config: PromptConfig) -> None:
        """
        Raises:
            ModelError: the chat template is asked for and missing or refuses a message, or no token ends a turn.
        """
        has_chat_template = bool(getattr(tokenizer, "chat_template", None))
        if config.template == "chat" and not has_chat_template:
            raise ModelError("prompt.template=chat, but the tokenizer has no chat template; use prompt.template=plain")
        self._tokenizer = tokenizer
        self._config = config
        self._uses_chat = has_chat_template and config.template != "plain"
        try:
            self.end_of_turn_id = self._find_end_of_turn()
        except jinja2.TemplateError as error:
            raise ModelError(f"the tokenizer's chat template refuses the prompt: {error}; see prompt.system") from error

    def text(self, prompt: str) -> str:
        """The prompt as the model reads it, up to where the response starts."""
        if self._uses_chat:
            return str(
                self._tokenizer.apply_chat_template(self._messages(prompt), tokenize=False, add_generation_prompt=True)
            )
        return self._config.plain.replace("{prompt}", prompt)

    def ids(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of each prompt; a chat template writes its own special tokens, a plain one gets BOS if any."""
        texts = [self.text(prompt) for prompt in prompts]
        encoded = self._tokenizer(texts, add_special_tokens=not self._uses_chat)["input_ids"]
        return [self._without_eos(ids) for ids in encoded]

    def _without_eos(self, ids: list[int]) -> list[int]:
        eos = self._tokenizer.eos_token_id
        return ids[:-1] if not self._uses_chat and ids and ids[-1] == eos else ids

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self._config.system}] if self._config.system else []
        return [*system, {"role": "user", "content": prompt}]

    def _find_end_of_turn(self) -> int:
        """The special token that a chat template writes after a response, else the tokenizer's EOS."""
        if self._uses_chat:
            messages = [*self._messages("question"), {"role": "assistant", "content": _PROBE}]
            rendered = self._tokenizer.apply_chat_template(messages, tokenize=False)
            ids = self._tokenizer(rendered.rpartition(_PROBE)[2].strip(), add_special_tokens=False)["input_ids"]
            special = [token_id for token_id in ids if token_id in self._tokenizer.all_special_ids]
            if special:
                return int(special[0])
        if self._tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end-of-sequence token, so a response could never end; set one")
        return int(self._tokenizer.eos_token_id)
