"""Adapters: one small function a data set, from a raw row to a prompt and named segments."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from sftkey_dist.config.schema import SourceConfig
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.data.memos import generate_memos
from sftkey_dist.errors import DataError

Row = Mapping[str, Any]
PromptAndValues = tuple[str, dict[str, str]]

_DATA_FILE = re.compile(r"\.(jsonl|json|csv|tsv|parquet|arrow|txt)(\.gz)?$")


class RowError(ValueError):
    """A raw row is malformed; ``reason`` is short and stable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_examples(source: SourceConfig) -> Iterator[Example | Refusal]:
    """Yield an example, or a refusal with its reason, for every row of a source.

    Raises:
        DataError: the file or the hub data set cannot be read at all.
    """
    if source.adapter == "decision_memos":
        yield from generate_memos(source.split, source.limit or 0, source.seed)
        return
    adapt = _ADAPTERS[source.adapter]
    for row_id, row in islice(_raw_rows(source), source.limit):
        if isinstance(row, Refusal):
            yield row
            continue
        try:
            prompt, values = adapt(row)
        except RowError as error:
            yield Refusal(row_id, error.reason, str(error))
        else:
            yield Example(row_id, prompt, values)


def gsm8k(row: Row) -> PromptAndValues:
    """GSM8K (`openai/gsm8k`): calculator marks are stripped, the last line holds the answer.

    ``{"question": "Natalia sold clips to 48 of her friends in April, and then …",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\nNatalia sold … in April and May.\\n#### 72"}``
    """
    question, solution = _text(row, "question"), _text(row, "answer")
    reasoning, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise RowError("no_answer", "field 'answer' has no line '#### <answer>'; add it or remove the row")
    reasoning = re.sub(r"<<[^<>]*>>", "", reasoning).strip()
    if not reasoning:
        raise RowError("no_reasoning", "field 'answer' has no reasoning before '####'; add it or remove the row")
    return question.strip(), {"reasoning": reasoning, "answer": answer.strip()}


_ADAPTERS: dict[str, Callable[[Row], PromptAndValues]] = {"gsm8k": gsm8k}


def _text(row: Row, field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        raise RowError("missing_field", f"field {field!r} must be text, found {type(value).__name__}")
    if not value.strip():
        raise RowError("empty_field", f"field {field!r} is empty")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise RowError("not_unicode", f"field {field!r} holds half of a surrogate pair, which is no character")
    return value


def _raw_rows(source: SourceConfig) -> Iterator[tuple[str, Row | Refusal]]:
    path = source.path or ""
    if _DATA_FILE.search(path) or Path(path).exists():
        return _jsonl_rows(Path(path))
    return _hub_rows(source)


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Row | Refusal]]:
    if not path.is_file():
        raise DataError(f"{path}: no such data file")
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: only .jsonl files are read; convert it to one JSON object a line")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                row_id = f"{path}:{number}"
                yield row_id, _parse_line(row_id, line)


def _parse_line(row_id: str, line: bytes) -> Row | Refusal:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Refusal(row_id, "not_utf8", f"not UTF-8 text (byte {error.start} of the line)")
    except (json.JSONDecodeError, RecursionError) as error:
        return Refusal(row_id, "invalid_json", f"not a JSON object: {error}")
    if not isinstance(row, dict):
        return Refusal(row_id, "invalid_json", f"expected a JSON object, found {type(row).__name__}")
    return row


def _hub_rows(source: SourceConfig) -> Iterator[tuple[str, Row]]:
    try:
        rows = datasets.load_dataset(source.path, source.subset, split=source.split, revision=source.revision)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        raise DataError(
            f"cannot load data set {source.path!r} (split {source.split!r}) from the hub: "
            f"{' '.join(str(error).split())[:300]}; for a local file give a path that ends in .jsonl"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{source.path}/{source.split}:{number}", row
