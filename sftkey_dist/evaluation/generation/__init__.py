"""Write responses to examples: with transformers, with vLLM, or with a server. Prompts are the training prompts."""

from sftkey_dist.evaluation.generation.decoding import Decoding, Generation, Generator, NoResponse

__all__ = ["Decoding", "Generation", "Generator", "NoResponse"]
