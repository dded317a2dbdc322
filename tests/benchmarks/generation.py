"""Generation for a test set: our fan-out beside a plain loop of `generate`, one prompt after the other.

``python -m tests.benchmarks.generation`` with SmolLM2-135M and GSM8K's test set; both use all cores.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from sftkey_dist.cluster.connection import connected
from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.prompt import PromptConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.data.example import Example
from sftkey_dist.data.whole import read_all
from sftkey_dist.evaluation.generation.fan_out import EvaluationPool, read_generations
from sftkey_dist.evaluation.job import EvaluationJob
from sftkey_dist.models.load import load_tokenizer
from tests.benchmarks.figures import Figure, arguments, publish

CONTRACT = ResponseContract()


def main() -> None:
    options = arguments(__doc__ or "", _options)
    number, max_new_tokens = (8, 32) if options.quick else (64, 160)
    source = SourceConfig(adapter="gsm8k", path=str(options.data), limit=number)
    examples, _ = read_all("test", [source], CONTRACT, 0.0)
    os.environ.pop("RAY_ADDRESS", None)
    ours_seconds, ours = fanned_out(options.model, examples, max_new_tokens)
    loop_seconds, loop = one_by_one(options.model, examples, max_new_tokens)
    equal = sum(ours[example.id] == loop[example.id] for example in examples) / len(examples)
    publish(
        "Generating",
        {
            "plain loop / ours, wall time": Figure(
                loop_seconds / ours_seconds, "", ">= 3.0", None, f"{number} prompts, up to {max_new_tokens} tokens"
            ),
            "outputs equal token for token": Figure(equal, "", ">= 0.98"),
            "ours": Figure(ours_seconds, "s", against="the model loaded"),
            "plain loop": Figure(loop_seconds, "s"),
        },
        options.json,
    )


def fanned_out(model: Path, examples: Sequence[Example], max_new_tokens: int) -> tuple[float, dict[str, str]]:
    """Seconds and outputs of one actor a core; what they load is loaded before."""
    settings = EvaluationConfig(max_new_tokens=max_new_tokens, batch_size=16)
    job = EvaluationJob(
        Form.TAGGED, CONTRACT, PromptConfig(), settings, {}, 0, False, model_dir=str(model.absolute()), strategy=""
    )
    cluster = ClusterConfig(num_workers=os.cpu_count() or 1)
    folder = Path(tempfile.mkdtemp())
    with connected(cluster, cluster.num_workers), EvaluationPool(cluster, settings, cluster.num_workers) as pool:
        warm_up = EvaluationConfig(max_new_tokens=1, batch_size=1)
        pool.generate(job_with(job, warm_up), examples[:4], folder / "warm-up", lambda done: None)
        started = time.perf_counter()
        pool.generate(job, examples, folder / "outputs", lambda done: None)
        seconds = time.perf_counter() - started
    return seconds, {name: samples[0].text for (_, name), samples in read_generations(folder / "outputs").items()}


def job_with(job: EvaluationJob, settings: EvaluationConfig) -> EvaluationJob:
    return EvaluationJob(
        job.form, job.contract, job.prompt, settings, {}, 0, False, model_dir=job.model_dir, strategy=""
    )


def one_by_one(folder: Path, examples: Sequence[Example], max_new_tokens: int) -> tuple[float, dict[str, str]]:
    """What one writes first: a loop over prompts."""
    tokenizer = load_tokenizer(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config = transformers.GenerationConfig()
    prompts = PromptEncoder(tokenizer, PromptConfig())
    outputs = {}
    started = time.perf_counter()
    for example in examples:
        ids = torch.tensor(prompts.ids([prompts.text(example)]))
        with torch.inference_mode():
            (row,) = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=prompts.end_of_turn_id,
                pad_token_id=prompts.end_of_turn_id,
            )
        new = [token for token in row[ids.shape[1] :].tolist() if token != prompts.end_of_turn_id]
        outputs[example.id] = tokenizer.decode(new, clean_up_tokenization_spaces=False)
    return time.perf_counter() - started, outputs


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/gsm8k/test.jsonl"))


if __name__ == "__main__":
    main()
