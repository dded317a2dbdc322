"""Loads the generation backend that a configuration names, and no other."""

import importlib.util
from pathlib import Path

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.contract.grammar import response_grammar
from sftkey_dist.errors import ConfigError
from sftkey_dist.evaluation.generation.decoding import Generator
from sftkey_dist.evaluation.generation.guide import Guide
from sftkey_dist.startup import UNUSED_BY_LANGUAGE_MODELS, loading_libraries

_GRAMMARS = "llguidance"


def load_generator(
    settings: EvaluationConfig, key: str, model_dir: Path, prompt: PromptConfig, trust_remote_code: bool
) -> Generator:
    """Load a model, or connect to the server that has it loaded.

    Raises:
        ConfigError: vLLM is configured but not installed.
    """
    if settings.endpoint is not None:
        from sftkey_dist.evaluation.generation.served import ServedGenerator

        return ServedGenerator(settings.endpoint, key, model_dir, prompt, trust_remote_code)
    if settings.backend == "transformers":
        with loading_libraries(without=UNUSED_BY_LANGUAGE_MODELS):
            from sftkey_dist.evaluation.generation.local import LocalGenerator

        return LocalGenerator(model_dir, prompt, trust_remote_code, settings.gpus_per_model)
    require_backend(settings)
    from sftkey_dist.evaluation.generation.with_vllm import VllmGenerator

    return VllmGenerator(model_dir, prompt, trust_remote_code, settings.gpus_per_model or 1)


def require_backend(settings: EvaluationConfig) -> None:
    """
    Raises:
        ConfigError: the configured backend, vLLM, is not installed, or what constrains the other one.
    """
    if settings.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "evaluation.backend=vllm: vLLM is not installed; install it with pip install 'sftkey_dist[vllm]', serve "
            "the model from an environment of its own (launch/serve/vllm.sh) with backend=endpoint, or use "
            "backend=transformers"
        )
    if settings.guided and settings.backend == "transformers" and importlib.util.find_spec(_GRAMMARS) is None:
        raise ConfigError(
            f"evaluation.guided=true: {_GRAMMARS} is not installed; install it with pip install 'sftkey_dist[guided]', "
            f"or set evaluation.guided=false"
        )


def require_grammar(guide: Guide) -> None:
    """Find out whether a contract's format has a grammar, as far as the installed libraries can tell.

    Raises:
        ConfigError: it has none.
    """
    grammar = response_grammar(guide.contract, guide.form, 0, {})
    if importlib.util.find_spec(_GRAMMARS) is None:
        return  # where the server or vLLM generates, they have it
    from llguidance import LLMatcher, LLTokenizer

    # Compiled, and not only validated: large repetitions are found while it is compiled.
    compiled = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    if compiled.is_error():
        raise ConfigError(
            f"evaluation.guided=true: a check of the contract cannot be part of a grammar "
            f"({in_a_line(compiled.get_error())}); change the check, or set evaluation.guided=false"
        )
