"""Generates responses to examples, with transformers, vLLM or a server. Prompts are the same as in training."""

from sftkey_dist.evaluation.generation.decoding import Decoding, Generation, Generator, NoResponse

__all__ = ["Decoding", "Generation", "Generator", "NoResponse"]
