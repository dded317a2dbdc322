"""What an exported model writes after a begun response, by transformers alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a journal."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def check_continuations(
    evaluation: Path, model_dir: Path, begun: Callable[[dict[str, Any]], list[str]], most: int
) -> None:
    """Generate the answers of a measurement with swapped reasoning again, and compare them.

    Args:
        evaluation: folder of the evaluation, whose answers were one batch.
        model_dir: the exported model.
        begun: the texts of prompt, marks and reasoning before the answer of a line; each is encoded alone.
        most: `evaluation.max_new_tokens`.
    """
    lines = read_lines(evaluation / "swapped_reasoning.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = [
        [token for text in begun(line) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
        for line in lines
    ]
    end, longest = tokenizer.convert_tokens_to_ids("<|im_end|>"), max(map(len, rows))
    inputs = torch.tensor([[end] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    outputs = model.generate(
        inputs, attention_mask=mask, do_sample=False, max_new_tokens=most, eos_token_id=end, pad_token_id=end
    )
    written = [tokenizer.decode(row[: [*row.tolist(), end].index(end)]) for row in outputs[:, longest:]]
    assert written == [line["generation"]["text"] for line in lines]
    assert any(written)
