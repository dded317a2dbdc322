"""Generation with transformers from a Hugging Face folder, in this process."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from torch import Tensor

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.generation.decoding import Decoding, Generation, read_generation
from sftkey_dist.models.accelerator import release_cached_memory, require_room, without_cudnn_attention
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.models.shape import num_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftkey_dist.evaluation.generation.masks import MaskMaker


class LocalGenerator:
    """A loaded model that generates responses."""

    def __init__(
        self, model_dir: Path, prompt: PromptConfig, trust_remote_code: bool, num_gpus: int | None = None
    ) -> None:
        """
        Args:
            model_dir: Hugging Face folder.
            prompt: how prompts are written.
            trust_remote_code: see `model.trust_remote_code`.
            num_gpus: number of visible accelerators over which the model is distributed. Default: the current one,
                if there is any.

        Raises:
            ModelError: the model does not fit into their memory.
        """
        self.tokenizer = load_tokenizer(model_dir, trust_remote_code)
        self.prompts = PromptEncoder(self.tokenizer, prompt)
        self._model = load_for_inference(model_dir, trust_remote_code, num_gpus)
        self._device = self._model.device

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[list[Generation]]:
        """See Generator."""
        texts, guide = [self.prompts.text(example) for example in examples], decoding.guide
        grammars = [guide.grammar(text, self.prompts) for text in texts] if guide else None
        return self.answer(self.prompts.ids(texts), decoding, grammars)

    def ids_of_quoted(self, example: Example) -> list[int]:
        """See `PromptEncoder`."""
        return self.prompts.ids_of_quoted(example)

    @cached_property
    def most_tokens(self) -> int | None:
        """Number of positions of the model; None if there is no limit, as with rotary embeddings."""
        return num_positions(self._model.config)

    @torch.inference_mode()
    def answer(
        self, prompt_ids: Sequence[Sequence[int]], decoding: Decoding, grammars: Sequence[str] | None = None
    ) -> list[list[Generation]]:
        """Responses to each encoded prompt, in order. Samples depend on the seed and on the batch.

        Args:
            prompt_ids: the prompts.
            decoding: how to decode; its guide is not used.
            grammars: of the responses to each prompt; None if nothing constrains them.
        """
        if self.most_tokens is None:
            return self._answer_batch(prompt_ids, decoding, grammars)
        rooms = [self.most_tokens - len(ids) for ids in prompt_ids]
        fitting = [place for place, room in enumerate(rooms) if room >= decoding.max_new_tokens]
        # A response that reaches the last position ends there. It is generated apart, so that no other one is shorter.
        groups = [fitting, *([place] for place in range(len(rooms)) if place not in fitting)]
        found: dict[int, list[Generation]] = {}
        for group in filter(None, groups):
            shorter = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, *(rooms[place] for place in group)))
            of_group = None if grammars is None else [grammars[place] for place in group]
            responses = self._answer_batch([prompt_ids[place] for place in group], shorter, of_group)
            found |= dict(zip(group, responses, strict=True))
        return [found[place] for place in range(len(rooms))]

    def _answer_batch(
        self, prompt_ids: Sequence[Sequence[int]], decoding: Decoding, grammars: Sequence[str] | None
    ) -> list[list[Generation]]:
        number = decoding.num_samples
        if decoding.max_new_tokens < 1:
            return [[Generation("", 0, truncated=True)] * number for _ in prompt_ids]
        masks = None if grammars is None else self._mask_maker.masks(grammars, number)
        input_ids, attention_mask = self._left_padded([list(ids) for ids in prompt_ids])
        with torch.random.fork_rng(devices=None if self._device.type == "cpu" else [self._device]):
            torch.manual_seed(decoding.seed + sum(prompt_ids[0]))  # chunks of one evaluation draw different samples
            outputs = self._model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=self._generation_config(decoding),
                tokenizer=self.tokenizer,
                logits_processor=masks,
            )
        rows = outputs[:, input_ids.shape[1] :].tolist()
        found = [read_generation(self.tokenizer, row, self.prompts.end_of_turn_id, decoding) for row in rows]
        return [found[start : start + number] for start in range(0, len(found), number)]

    @torch.inference_mode()
    def likeliest(self, prompt_ids: Sequence[Sequence[int]], responses: Sequence[str]) -> list[str]:
        """The most likely of ``responses`` to each encoded prompt, with the end-of-turn token included."""
        end = self.prompts.end_of_turn_id
        written = [[*self.tokenizer.encode(text, add_special_tokens=False), end] for text in responses]
        return [responses[int(self._log_probabilities(prompt, written).argmax())] for prompt in prompt_ids]

    def _log_probabilities(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> Tensor:
        """Log-probability of each response after the prompt, [responses]. The prompt is processed once."""
        read = self._model(input_ids=torch.tensor([prompt], device=self._device), use_cache=True, logits_to_keep=1)
        read.past_key_values.batch_repeat_interleave(len(responses))
        longest = max(map(len, responses))
        ids = torch.tensor([[*r, *[self._pad_id] * (longest - len(r))] for r in responses], device=self._device)
        after = self._model(input_ids=ids, past_key_values=read.past_key_values).logits
        logits = torch.cat([read.logits.expand(len(responses), -1, -1), after[:, :-1]], dim=1)
        of_tokens = logits.float().log_softmax(dim=-1).gather(2, ids[:, :, None]).squeeze(2)
        return torch.stack([row[: len(r)].sum() for row, r in zip(of_tokens, responses, strict=True)])

    @cached_property
    def _mask_maker(self) -> "MaskMaker":
        """Made for the first grammar, because its library is optional."""
        from sftkey_dist.evaluation.generation.masks import MaskMaker

        num_logits = self._model.config.get_text_config().vocab_size
        return MaskMaker(self.tokenizer, self.prompts.end_of_turn_id, num_logits)

    def _generation_config(self, decoding: Decoding) -> transformers.GenerationConfig:
        sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
        return transformers.GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            do_sample=decoding.temperature > 0,
            num_return_sequences=decoding.num_samples,
            stop_strings=[decoding.closing_tag] if decoding.closing_tag else None,
            eos_token_id=self.prompts.end_of_turn_id,
            pad_token_id=self._pad_id,
            **(sampling if decoding.temperature > 0 else {}),
        )

    @property
    def _pad_id(self) -> int:
        """Padding on the left is masked, so any id works; on the right it must not look like part of a response."""
        return int(self.prompts.end_of_turn_id)

    def close(self) -> None:
        """Release the model's memory. The generator cannot be used afterwards."""
        del self._model
        release_cached_memory()

    def _left_padded(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, ids))
        input_ids = torch.tensor([[self._pad_id] * (longest - len(row)) + row for row in ids], device=self._device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=self._device)
        return input_ids, mask


def load_for_inference(model_dir: Path, trust_remote_code: bool, num_gpus: int | None = None) -> "PreTrainedModel":
    """Load a model in the precision of its folder; see `LocalGenerator`.

    Raises:
        ModelError: the model does not fit into the memory of the accelerators.
    """
    devices = _devices(num_gpus)
    require_room(model_dir, devices)
    without_cudnn_attention()
    # With a device given, the weights do not pass through host memory.
    placement = {"": devices[0]} if len(devices) == 1 else "auto" if devices else None
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_pretrained(
        model_dir, dtype="auto", trust_remote_code=trust_remote_code, device_map=placement
    )
    # The folder's own generation config, such as a repetition penalty or suppressed tokens, must not be merged in.
    model.generation_config = transformers.GenerationConfig()
    model.eval()
    return model


def _devices(num_gpus: int | None) -> list[torch.device]:
    if not torch.cuda.is_available():
        return []
    if num_gpus is None or num_gpus == 1:
        return [torch.device("cuda", torch.cuda.current_device())]
    return [torch.device("cuda", number) for number in range(num_gpus)]
