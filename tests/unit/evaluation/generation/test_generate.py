import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.evaluation import EvaluationConfig, ServedModelConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.generation import Decoding, Generation, fan_out
from sftkey_dist.evaluation.generation.decoding import read_generation
from sftkey_dist.evaluation.generation.local import LocalGenerator
from tests.distributed.harness import make_model

PROMPTS = [
    Example(f"p:{i}", prompt, {})
    for i, prompt in enumerate(["Approve?", "Approve, review or reject? Income: steady.", "a", "Debt: low. " * 12])
]


@pytest.fixture(scope="module")
def generator(tiny_model):
    return LocalGenerator(tiny_model, PromptConfig(), trust_remote_code=False)


def test_a_padded_batch_generates_what_each_prompt_generates_alone(generator, tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompts = PromptEncoder(tokenizer, PromptConfig())
    end = prompts.end_of_turn_id
    for prompt, (generation,) in zip(PROMPTS, generator.generate(PROMPTS, Decoding(12)), strict=True):
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
    stubborn = LocalGenerator(tmp_path / "model", PromptConfig(), trust_remote_code=False)
    assert stubborn.generate(PROMPTS, Decoding(12)) == generator.generate(PROMPTS, Decoding(12))


@pytest.mark.parametrize("endpoint", [None, ServedModelConfig(url="http://server:1", model="m")])
def test_actors_never_wait_for_the_place_of_a_driver_in_ray_tune(endpoint, monkeypatch):
    """Without a strategy of their own they would inherit that of the trial, whose one place the driver has taken."""
    asked = []
    fake = SimpleNamespace(options=lambda **given: asked.append(given) or SimpleNamespace(remote=lambda *of: None))
    monkeypatch.setattr(fan_out, "_EvaluationActor", fake)
    fan_out.EvaluationPool(
        ClusterConfig(), EvaluationConfig(backend="endpoint" if endpoint else "transformers", endpoint=endpoint), 1
    )
    assert [given["scheduling_strategy"] for given in asked] == ["DEFAULT"]
    assert asked[0]["num_cpus"] == (0 if endpoint else 1)


def test_order_of_prompts_is_kept(generator):
    forwards = generator.generate(PROMPTS, Decoding(4))
    assert generator.generate(PROMPTS[::-1], Decoding(4)) == forwards[::-1]


def test_the_likeliest_response_is_the_one_whose_text_has_the_highest_probability(generator, tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompts = PromptEncoder(tokenizer, PromptConfig())
    responses = ["approve", "review this, please", "reject it"]
    scores = []
    for prompt in PROMPTS:
        context = prompts.ids([prompts.text(prompt)])[0]
        of_prompt = []
        for response in responses:
            ids = [*context, *tokenizer.encode(response, add_special_tokens=False), prompts.end_of_turn_id]
            with torch.no_grad():
                nll = torch.nn.functional.cross_entropy(
                    model(input_ids=torch.tensor([ids])).logits[0, len(context) - 1 : -1],
                    torch.tensor(ids[len(context) :]),
                    reduction="sum",
                )
            of_prompt.append(-nll.item())
        scores.append(of_prompt)
    found = generator.likeliest(prompts.ids([prompts.text(prompt) for prompt in PROMPTS]), responses)
    assert found == [responses[of_prompt.index(max(of_prompt))] for of_prompt in scores]
    encoded = [[*tokenizer.encode(text, add_special_tokens=False), prompts.end_of_turn_id] for text in responses]
    context = prompts.ids([prompts.text(PROMPTS[1])])[0]
    torch.testing.assert_close(
        generator._log_probabilities(context, encoded), torch.tensor(scores[1]), rtol=1e-4, atol=1e-4
    )


def test_a_response_may_end_with_its_closing_tag(generator, tokenizer):
    """What a model writes is cut at a text that it is seen to write, in a batch whose other rows go on."""
    drawn = Decoding(12, temperature=1.5, seed=3)
    long = generator.generate(PROMPTS, drawn)
    row, (seen,) = next((i, row) for i, row in enumerate(long) if len(row[0].text.split()) > 2)
    tag = seen.text.split()[1][:2]
    cut = generator.generate(PROMPTS, replace(drawn, closing_tag=tag))
    (stopped,) = cut[row]
    assert stopped.text == seen.text[: seen.text.index(tag) + len(tag)]
    assert not stopped.truncated
    assert stopped.num_tokens < seen.num_tokens
    for (before,), (after,) in zip(long, cut, strict=True):
        assert before.text.startswith(after.text)


def test_tokens_after_the_closing_tag_are_not_counted(tokenizer):
    ids = tokenizer("<Answer>approve</Answer> and more", add_special_tokens=False)["input_ids"]
    inside = tokenizer("<Answer>approve</Answer>", add_special_tokens=False)["input_ids"]
    read = read_generation(tokenizer, ids, tokenizer.eos_token_id, Decoding(50, closing_tag="</Answer>"))
    assert read == Generation("<Answer>approve</Answer>", len(inside), False)


def test_samples_are_drawn_anew_for_each_and_repeatably(generator):
    decoding = Decoding(8, num_samples=3, temperature=1.5, seed=1)
    drawn = generator.generate(PROMPTS, decoding)
    assert [len(samples) for samples in drawn] == [3] * len(PROMPTS)
    assert len({sample.text for samples in drawn for sample in samples}) > len(PROMPTS)
    assert generator.generate(PROMPTS, decoding) == drawn
    assert generator.generate(PROMPTS, Decoding(8, 3, 1.5, seed=2)) != drawn


def test_a_response_ends_where_a_models_table_of_positions_does(tiny_model, tmp_path):
    config = transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=1, n_head=2)
    limited = LocalGenerator(make_model(tmp_path / "gpt2", config, tiny_model), PromptConfig(), False)
    prompts = [[3] * 20, [3] * 5, [3] * 31, [4] * 8, [3] * 32]
    found = limited.answer(prompts, Decoding(16))
    assert found == [limited.answer([prompt], Decoding(16))[0] for prompt in prompts], "as each is alone"
    assert [one.num_tokens for (one,) in found] == [12, 16, 1, 16, 0]
    assert limited.answer([[3] * 32], Decoding(64, num_samples=2)) == [[Generation("", 0, True)] * 2]
