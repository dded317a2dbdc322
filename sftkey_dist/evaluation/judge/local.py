"""A judge that is a Hugging Face model in this process."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import torch

from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.schema import PromptConfig
from sftkey_dist.data.example import Example, Turn
from sftkey_dist.endpoint import Chat
from sftkey_dist.errors import ModelError
from sftkey_dist.evaluation.generation.decoding import Decoding
from sftkey_dist.evaluation.generation.local import LocalGenerator


class LocalJudge:
    """Answers chats greedily by the model's chat template."""

    def __init__(self, config: LocalJudgeConfig, folder: str, num_threads: int) -> None:
        """
        Raises:
            ModelError: the model has no chat template that takes a system message.
        """
        torch.set_num_threads(num_threads)
        self._decoding = Decoding(max_new_tokens=config.max_tokens)
        try:
            self._generator = LocalGenerator(Path(folder), PromptConfig(template="chat"), config.trust_remote_code)
        except jinja2.TemplateError as error:
            raise ModelError(f"{folder}: the chat template cannot be used: {error}") from error

    def replies(self, chats: Sequence[Chat]) -> list[str]:
        """One reply a chat, in order."""
        examples = [Example("", chat.user, {}, (Turn("system", chat.system),)) for chat in chats]
        return [sample.text for (sample,) in self._generator.generate(examples, self._decoding)]
