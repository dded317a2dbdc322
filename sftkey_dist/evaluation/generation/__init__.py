"""Write responses to examples: with transformers, with vLLM, or with a server. Prompts are the training prompts."""

from sftkey_dist.evaluation.generation.decoding import Decoding, Generation, Generator, NoResponse
from sftkey_dist.evaluation.generation.load import load_generator

__all__ = ["Decoding", "Generation", "Generator", "NoResponse", "load_generator"]
