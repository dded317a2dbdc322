"""A judge that is a Hugging Face model on the cluster. One actor per worker loads it and answers in batches."""

from collections.abc import Sequence
from pathlib import Path

import ray
import torch

from sftkey_dist.cluster.connection import room_for, wait_for_room
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.encoding.prompt import PromptError
from sftkey_dist.data.example import Example, Turn
from sftkey_dist.endpoint import Chat, Pace, Reply
from sftkey_dist.errors import ModelError
from sftkey_dist.evaluation.generation import Decoding
from sftkey_dist.evaluation.generation.local import LocalGenerator
from sftkey_dist.evaluation.judge.asking import RESTARTS, Judge, JudgeReply, read_reply
from sftkey_dist.evaluation.judge.reading import Reader, possible_replies
from sftkey_dist.models.accelerator import hide_unless_reserved


def open_local_judge(config: LocalJudgeConfig, folder: Path, cluster: ClusterConfig, num_workers: int) -> Judge:
    """Start the actors. A Ray cluster must be connected.

    Raises:
        ConfigError: no node has as many accelerators as the judge needs.
        ModelError: the model cannot be used.
    """
    if config.gpus_per_model is not None:
        wait_for_room(cluster, 1, config.gpus_per_model)
        num_workers = min(num_workers, room_for(cluster, config.gpus_per_model))
    options = {
        "num_cpus": cluster.cpus_per_worker,
        "num_gpus": config.gpus_per_model or cluster.gpus_per_worker,
        "runtime_env": {"env_vars": cluster.environment},
        "scheduling_strategy": "DEFAULT",  # not within the place that Ray Tune holds for the driver of a trial
        **RESTARTS,
    }
    arguments = (config, folder, cluster)
    actors = [_LocalActor.options(**options).remote(*arguments) for _ in range(num_workers)]  # type: ignore[attr-defined]
    return Judge(actors, num_workers, config.batch_size, Pace(None))


class LocalJudge:
    """Answers chats with the model's chat template, greedily or with the most likely of the possible replies."""

    def __init__(self, config: LocalJudgeConfig, folder: Path) -> None:
        """
        Raises:
            ModelError: the model has no chat template.
        """
        self._folder = folder
        self._chooses = config.reply == "chosen"
        self._decoding = Decoding(max_new_tokens=config.max_tokens)
        self._generator = LocalGenerator(
            folder, PromptConfig(template="chat"), config.trust_remote_code, config.gpus_per_model
        )

    def replies(self, chats: Sequence[Chat], reader: Reader) -> list[Reply]:
        """One reply per chat, in order. ``reader`` determines the possible replies.

        The content of a chat is encoded as plain text, never as one of the model's special tokens.

        Raises:
            ModelError: the chat template does not support system messages.
        """
        prompts = [self._prompt(chat) for chat in chats]
        replies = iter(self._answers([prompt for prompt in prompts if not isinstance(prompt, Reply)], reader))
        return [prompt if isinstance(prompt, Reply) else next(replies) for prompt in prompts]

    def _answers(self, prompts: Sequence[list[int]], reader: Reader) -> list[Reply]:
        if not prompts:
            return []
        if self._chooses:
            return [Reply(text) for text in self._generator.likeliest(prompts, possible_replies(reader))]
        samples = self._generator.answer(prompts, self._decoding)
        return [Reply(sample.text, cut_off=sample.truncated) for (sample,) in samples]

    def _prompt(self, chat: Chat) -> list[int] | Reply:
        """The prompt's token ids, or the failure if the model cannot be asked about this text."""
        try:
            ids = self._generator.ids_of_quoted(as_example(chat))
        except PromptError as error:
            self._require_template_for(chat)
            return Reply(failure=f"prompt_refused: {error}")
        most = self._generator.most_tokens
        if most is not None and len(ids) + self._decoding.max_new_tokens > most:
            return Reply(failure=f"prompt_too_long: {len(ids)} tokens, the judge takes {most} with its reply")
        return ids

    def _require_template_for(self, chat: Chat) -> None:
        """
        Raises:
            ModelError: the chat template refuses every chat of this shape.
        """
        try:
            self._generator.ids_of_quoted(as_example(Chat("grade" if chat.system else "", "question")))
        except PromptError as error:
            raise ModelError(
                f"{self._folder}: {error}; use a judge template without a [system] part, or another judge"
            ) from error


@ray.remote
class _LocalActor:
    def __init__(self, config: LocalJudgeConfig, folder: Path, cluster: ClusterConfig) -> None:
        hide_unless_reserved(cluster.gpus_per_worker)
        torch.set_num_threads(cluster.cpus_per_worker)
        self._judge = LocalJudge(config, folder)

    def ask(self, chats: Sequence[Chat], reader: Reader, is_first: bool, is_known_to_answer: bool) -> list[JudgeReply]:
        """One reply per chat. Replies are deterministic, so a failure is not retried."""
        return [read_reply(reply, reader) for reply in self._judge.replies(chats, reader)]


def as_example(chat: Chat) -> Example:
    """The chat as an example from which a prompt is rendered."""
    system = (Turn("system", chat.system),) if chat.system else ()
    return Example("", chat.user, {}, system)
