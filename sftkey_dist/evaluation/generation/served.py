"""Generation by an OpenAI-compatible server that has the model loaded."""

from collections.abc import Sequence
from pathlib import Path

from sftkey_dist.config.evaluation import ServedModelConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.endpoint import EMPTY, Reply, failure_name
from sftkey_dist.endpoint.client import Endpoint
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.generation.decoding import Decoding, Generation, NoResponse
from sftkey_dist.evaluation.generation.guide import Guide
from sftkey_dist.models.load import load_tokenizer


class ServedGenerator:
    """Sends the training prompts, as token ids or as messages, to a server."""

    def __init__(
        self, server: ServedModelConfig, key: str, model_dir: Path, prompt: PromptConfig, trust_remote_code: bool
    ) -> None:
        """
        Args:
            server: the server and the model that it has loaded.
            key: API key of the server.
            model_dir: folder with the tokenizer.
            prompt: see LocalGenerator.
            trust_remote_code: see LocalGenerator.
        """
        self._server = server
        self._endpoint = Endpoint(server, key)
        self._tokenizer = load_tokenizer(model_dir, trust_remote_code)
        self._prompts = PromptEncoder(self._tokenizer, prompt)

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[list[Generation] | NoResponse]:
        """See Generator. The very first prompt is sent alone, to check that a server answers.

        Raises:
            ConfigError: no server answers, or not with whole responses.
        """

        def generate_one(example: Example) -> list[Generation] | NoResponse:
            return self._generate_one(example, decoding)

        return list(self._endpoint.each(generate_one, examples, _failure_of))

    def _generate_one(self, example: Example, decoding: Decoding) -> list[Generation] | NoResponse:
        replies = self._chat(example, decoding) if self._server.api == "chat" else self._complete(example, decoding)
        self._require_whole(replies)
        if decoding.guide is not None:
            self._require_guided(replies, decoding.guide)
        failures = [reply.failure for reply in replies if reply.failure and failure_name(reply.failure) not in EMPTY]
        if failures or len(replies) != decoding.num_samples:
            return NoResponse(failures[0] if failures else f"{len(replies)} samples, not {decoding.num_samples}")
        return [self._generation(reply) for reply in replies]

    def _chat(self, example: Example, decoding: Decoding) -> list[Reply]:
        messages, options = self._prompts.request(example)
        return self._endpoint.converse(messages, **_options(decoding), **self._guided(example, decoding), **options)

    def _complete(self, example: Example, decoding: Decoding) -> list[Reply]:
        (ids,) = self._prompts.ids([self._prompts.text(example)])
        # vLLM's own options: tags may be special tokens, and this package decides what ends a response.
        of_vllm = {
            "stop_token_ids": [self._prompts.end_of_turn_id],
            "skip_special_tokens": False,
            # Without these, it takes them from the model's folder, such as a penalty of repetitions.
            "repetition_penalty": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "include_stop_str_in_output": bool(decoding.closing_tag),
        }
        stop = {"stop": [decoding.closing_tag]} if decoding.closing_tag else {}
        guided = self._guided(example, decoding)
        return self._endpoint.complete(ids, **_options(decoding), **guided, **stop, **of_vllm)

    def _guided(self, example: Example, decoding: Decoding) -> dict[str, object]:
        """What asks the server to constrain its response: OpenAI's field for a JSON object, or else vLLM's."""
        guide = decoding.guide
        if guide is None:
            return {}
        if guide.schema is None:
            return {"structured_outputs": {"grammar": guide.grammar(self._prompts.text(example), self._prompts)}}
        schema = {"name": "response", "schema": guide.schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def _require_whole(self, replies: Sequence[Reply]) -> None:
        """Check that a server has not taken thinking out of a response, which is trained and compared as a whole.

        Raises:
            ConfigError: it has.
        """
        if any(reply.has_thinking for reply in replies):
            raise ConfigError(
                f"endpoint {self._server.url}: the server returns thinking apart from the response, which is then not "
                f"whole; start it without a reasoning parser, or set evaluation.endpoint.api=completions"
            )

    def _require_guided(self, replies: Sequence[Reply], guide: Guide) -> None:
        """Check that a server has not ignored the constraint, as many ignore fields that they do not know.

        Raises:
            ConfigError: a reply that has ended breaks the constraint.
        """
        for reply in replies:
            breach = "" if reply.failure or reply.cut_off else guide.breach(self._without_end(reply.text))
            if breach:
                field = "structured_outputs" if guide.schema is None else "response_format"
                raise ConfigError(
                    f"endpoint {self._server.url}: evaluation.guided=true, but the server ignores {field}: a response "
                    f"that has ended breaks the format ({in_a_line(breach)}); use a server that constrains responses, "
                    f"such as vLLM, or set evaluation.guided=false"
                )

    def _without_end(self, text: str) -> str:
        return text.removesuffix(self._tokenizer.convert_ids_to_tokens(self._prompts.end_of_turn_id))

    def _generation(self, reply: Reply) -> Generation:
        text = self._without_end(reply.text)
        num_tokens = reply.completion_tokens or len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return Generation(text, num_tokens, reply.cut_off)


def _failure_of(response: list[Generation] | NoResponse) -> str:
    return response.reason if isinstance(response, NoResponse) else ""


def _options(decoding: Decoding) -> dict[str, object]:
    """Only the options that make a difference, because some servers refuse an option that they do not support.

    Temperature and nucleus sampling have no reliable defaults, because a server may take them from the model's folder.
    """
    samples = {"n": decoding.num_samples} if decoding.num_samples > 1 else {}
    nucleus = {"top_p": decoding.top_p} if decoding.temperature > 0 else {}
    return {"max_tokens": decoding.max_new_tokens, "temperature": decoding.temperature, **samples, **nucleus}
