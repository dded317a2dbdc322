"""The paper's published numbers (arXiv:2512.21017), for orientation next to a run of the same model.

Averages over GSM8K, OpenR1-Math-220K, OpenBookQA and CoT-Collection, alpha = 0.7, judged by Meta-Llama-3-70B-Instruct.
"""

from dataclasses import dataclass

from sftkey_dist.data.data_sets import data_set_names, find_data_set
from sftkey_dist.report.markdown import table


@dataclass(frozen=True)
class PublishedRow:
    """A strategy of a model. None means that the paper's average is unknown."""

    model: str
    strategy: str
    score: float | None = None
    accuracy: float | None = None
    format: float | None = None


_ALL_ROWS = (
    PublishedRow("Qwen3-8B-Base", "sft", score=0.7670, accuracy=0.7069),
    PublishedRow("Qwen3-8B-Base", "sft-tag", accuracy=0.7296),
    PublishedRow("Qwen3-8B-Base", "key-tag", format=0.7512),
    PublishedRow("Qwen3-8B-Base", "sftkey-tag", score=0.8441, format=0.9959),
    PublishedRow("Qwen2.5-7B", "sft", score=0.7586, accuracy=0.6722),
    PublishedRow("Qwen2.5-7B", "sft-tag", accuracy=0.6696, format=0.9601),
    PublishedRow("Qwen2.5-7B", "key-tag", format=0.0),
    PublishedRow("Qwen2.5-7B", "sftkey-tag", score=0.8048, format=0.9632),
    PublishedRow("SmolLM3-3B-Base", "sft", score=0.6863),
    PublishedRow("SmolLM3-3B-Base", "key-tag", format=0.0679),
    PublishedRow("SmolLM3-3B-Base", "sftkey-tag", score=0.7005, format=0.9084),
    PublishedRow("Qwen2.5-3B", "sft", score=0.4176),
    PublishedRow("Qwen2.5-3B", "sftkey-tag", score=0.4280),
    PublishedRow("Qwen2.5-1.5B", "sft", score=0.3468),
    PublishedRow("Qwen2.5-1.5B", "sftkey-tag", score=0.3880),
)


def published_rows(model: str | None, adapters: set[str]) -> list[PublishedRow]:
    """The paper's rows for a model, if the test data is among the paper's."""
    name = (model or "").rstrip("/").rpartition("/")[2].lower()
    is_in_paper = any(find_data_set(adapter).is_in_paper for adapter in adapters & set(data_set_names()))
    return [row for row in _ALL_ROWS if row.model.lower() == name] if is_in_paper else []


def published_averages() -> list[str]:
    """The averages of all models as lines of Markdown, with what they are worth here."""
    rows = [
        [row.model, row.strategy, *("" if v is None else f"{v:.4f}" for v in (row.accuracy, row.format, row.score))]
        for row in _ALL_ROWS
    ]
    return [
        "The paper's averages (arXiv:2512.21017; GSM8K, OpenR1-Math-220K, OpenBookQA and CoT-Collection, a 70B judge), "
        "for orientation: other models, other data, no direct comparison.",
        "",
        *table(["model", "strategy", "accuracy", "format", "score"], rows),
    ]
