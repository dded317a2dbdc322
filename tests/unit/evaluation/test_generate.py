import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from sftkey_dist.config.schema import PromptConfig
from sftkey_dist.data.example import Example
from sftkey_dist.data.prompt import PromptEncoder
from sftkey_dist.evaluation.generate import Generator

PROMPTS = [
    Example(f"p:{i}", prompt, {})
    for i, prompt in enumerate(["Approve?", "Approve, review or reject? Income: steady.", "a", "Debt: low. " * 12])
]


@pytest.fixture(scope="module")
def generator(tiny_model):
    return Generator(tiny_model, PromptConfig(), trust_remote_code=False)


def test_a_padded_batch_generates_what_each_prompt_generates_alone(generator, tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompts = PromptEncoder(tokenizer, PromptConfig())
    end = prompts.end_of_turn_id
    for prompt, generation in zip(PROMPTS, generator.generate(PROMPTS, max_new_tokens=12), strict=True):
        ids = prompts.ids([prompts.text(prompt)])[0]
        new: list[int] = []
        while len(new) < 12 and (not new or new[-1] != end):
            with torch.no_grad():
                new.append(int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
        assert generation.truncated == (end not in new)
        kept = new[: new.index(end)] if end in new else new
        assert generation.text == tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        assert generation.num_tokens == len(kept)


def test_greedy_means_greedy_whatever_the_folder_says(tiny_model, generator, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=9.0).save_pretrained(tmp_path / "model")
    stubborn = Generator(tmp_path / "model", PromptConfig(), trust_remote_code=False)
    assert stubborn.generate(PROMPTS, 12) == generator.generate(PROMPTS, 12)


def test_order_of_prompts_is_kept(generator):
    forwards = generator.generate(PROMPTS, max_new_tokens=4)
    assert generator.generate(PROMPTS[::-1], max_new_tokens=4) == forwards[::-1]
