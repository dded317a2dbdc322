"""Tasks of lm-evaluation-harness over local files, for tests of the capability check."""

import json
from pathlib import Path
from typing import Any

import yaml

from sftkey_dist.data.memos import generate_memos

NUM_DOCUMENTS = 24
CHOICE: dict[str, Any] = {
    "task": "memo_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "memos.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}\nReasoning:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    "metadata": {"version": 1.5},
}
BROKEN = CHOICE | {"task": "memo_broken", "doc_to_target": "{{nothing_there}}"}
ON_THE_HUB = CHOICE | {"task": "memo_hub", "dataset_path": "someone/memos", "dataset_kwargs": {}}
PERPLEXITY = CHOICE | {
    "task": "memo_perplexity",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{prompt}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}
GENERATED = CHOICE | {
    "task": "memo_words",
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "approve",
    "generation_kwargs": {"max_gen_toks": 4, "until": ["."]},
    "metric_list": [{"metric": "exact_match"}],
    "filter_list": [{"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "loose")],
}
GROUP = {"group": "memo_group", "task": ["memo_choice", "memo_again"]}
UNJOINED = {"group": "memo_unjoined", "task": ["memo_choice", "memo_perplexity", "memo_bytes"]}
ALL = (CHOICE, CHOICE | {"task": "memo_again"}, BROKEN, ON_THE_HUB, PERPLEXITY)
ALL = (*ALL, PERPLEXITY | {"task": "memo_bytes"}, GENERATED, GROUP, UNJOINED)


def write_tasks(folder: Path) -> Path:
    """All tasks, and their documents: a memo, and which of three reasonings of different lengths is its own."""
    folder.mkdir()
    for task in ALL:
        (folder / f"{task.get('group', task['task'])}.yaml").write_text(yaml.safe_dump(task))
    (folder / "memos.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents()))
    return folder


def documents() -> list[dict[str, Any]]:
    memos = list(generate_memos("test", NUM_DOCUMENTS + 2, seed=0))
    found = []
    for number in range(NUM_DOCUMENTS):
        texts = [memo.values["reasoning"].split() for memo in memos[number : number + 3]]
        # Of different lengths in every fourth document: elsewhere the shortest would nearly always be the likeliest.
        lengths = (4, 5, 6) if number % 4 == 0 else (5, 5, 5)
        choices = [" ".join(words[:length]) for words, length in zip(texts, lengths, strict=True)]
        label = number // 3 % 3
        choices[0], choices[label] = choices[label], choices[0]
        found.append({"prompt": memos[number].prompt, "choices": choices, "label": label})
    return found
