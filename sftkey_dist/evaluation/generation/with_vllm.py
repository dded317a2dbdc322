"""Generation with vLLM (extra `vllm`) from a Hugging Face folder, for accelerators and large test sets.

This module is imported only if a configuration asks for vLLM, which is an optional dependency.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.sampling_params import StructuredOutputsParams

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.errors import ModelError
from sftkey_dist.evaluation.generation.decoding import Decoding, Generation, read_generation
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.models.problem import loading_problem


class VllmGenerator:
    """A vLLM engine that generates responses."""

    def __init__(self, model_dir: Path, prompt: PromptConfig, trust_remote_code: bool, num_gpus: int) -> None:
        """
        Args:
            model_dir: Hugging Face folder.
            prompt: how prompts are written.
            trust_remote_code: see `model.trust_remote_code`.
            num_gpus: number of accelerators over which the model is distributed.

        Raises:
            ModelError: vLLM cannot load the model there.
        """
        self.tokenizer = load_tokenizer(model_dir, trust_remote_code)
        self.prompts = PromptEncoder(self.tokenizer, prompt)
        config = transformers.AutoConfig.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
        try:
            self._engine = LLM(
                model=str(model_dir),
                tensor_parallel_size=num_gpus,
                max_model_len=-1,  # as long as fits; the model's whole context may need more memory than is left
                trust_remote_code=trust_remote_code,
                dtype=str(config.dtype or "auto").removeprefix("torch."),  # vLLM would round float32 to half precision
                generation_config="vllm",  # do not merge in the folder's own generation config
                structured_outputs_config={"backend": "guidance"},  # reads the grammars of `evaluation.guided`
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{model_dir}: vLLM cannot load the model on {num_gpus} accelerators ({loading_problem(error)}); see "
                f"evaluation.gpus_per_model"
            ) from error

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[list[Generation]]:
        """See Generator."""
        texts, guide = [self.prompts.text(example) for example in examples], decoding.guide
        grammars = [guide.grammar(text, self.prompts) for text in texts] if guide else None
        return self.answer(self.prompts.ids(texts), decoding, grammars)

    def answer(
        self, prompt_ids: Sequence[Sequence[int]], decoding: Decoding, grammars: Sequence[str] | None = None
    ) -> list[list[Generation]]:
        """See LocalGenerator."""
        prompts: list[Any] = [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompt_ids]
        of_each: Sequence[str | None] = grammars or [None] * len(prompts)
        params = [self._sampling_params(decoding, grammar) for grammar in of_each]
        outputs = self._engine.generate(prompts, params, use_tqdm=False)
        end = self.prompts.end_of_turn_id
        return [
            [read_generation(self.tokenizer, sample.token_ids, end, decoding) for sample in output.outputs]
            for output in outputs
        ]

    @property
    def most_tokens(self) -> int | None:
        """See LocalGenerator."""
        return int(self._engine.llm_engine.model_config.max_model_len)

    def _sampling_params(self, decoding: Decoding, grammar: str | None) -> SamplingParams:
        return SamplingParams(
            n=decoding.num_samples,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            seed=decoding.seed if decoding.temperature else None,
            max_tokens=decoding.max_new_tokens,
            stop=[decoding.closing_tag] if decoding.closing_tag else None,
            stop_token_ids=[self.prompts.end_of_turn_id],
            ignore_eos=True,  # the end of a turn is what ends a response, in every backend
            skip_special_tokens=False,
            structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar is not None else None,
        )
