"""Where judges and deterministic checks disagree: how often, and a file that a person labels and feeds back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.agreement import Agreement, agreement_of
from sftkey_dist.evaluation.conversation import conversation_of
from sftkey_dist.evaluation.record import Record, with_labels
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.files import write_text_atomically
from sftkey_dist.run_dir.journal import to_lines

Key = tuple[str, str, int, str, str]
"""Test set, record, sample, segment and answer: a label is of one text."""

_KEY_TYPES = {"data_set": str, "id": str, "sample": int, "segment": str, "answer": str}
_LABELS = (Verdict.CORRECT.value, Verdict.INCORRECT.value)


def agreement_of_judge(records: Sequence[Record]) -> Agreement | None:
    """The judges against the deterministic checks; None where no answer was judged by both."""
    return agreement_of(
        (found["verdict"], record["checks"][name]["verdict"])
        for record in records
        for name, found in record["judged"].items()
    )


def agreements_with_person(records: Sequence[Record]) -> dict[str, Agreement]:
    """The judges and the checks against the labels of a person."""
    labels = [(record, name, label) for record in records for name, label in record["labels"].items()]
    found = {
        "check": agreement_of((record["checks"][name]["verdict"], label) for record, name, label in labels),
        "judge": agreement_of(
            (record["judged"][name]["verdict"], label) for record, name, label in labels if name in record["judged"]
        ),
    }
    return {rater: agreement for rater, agreement in found.items() if agreement is not None}


def read_labels(file: Path) -> dict[Key, str]:
    """The labels that a person wrote into a review file.

    Raises:
        DataError: a label is neither `correct` nor `incorrect`, or a line is no JSON object.
    """
    labels = {}
    for number, line in _numbered_lines(file):
        label = line.get("label")
        if label in (None, ""):
            continue
        if label not in _LABELS:
            raise DataError(f"{file}:{number}: label must be correct or incorrect, found {str(label)[:40]!r}")
        labels[_key_of(line)] = str(label)
    return labels


def labelled(records: Sequence[Record], labels: Mapping[Key, str]) -> list[Record]:
    """The records with the labels that are of their answers."""
    return [
        with_labels(record, {name: labels[key] for name in record["answer"] if (key := _key(record, name)) in labels})
        for record in records
    ]


def write_review(file: Path, records: Sequence[Record], labels: Mapping[Key, str]) -> int:
    """Write what a person should look at: disagreements, answers nobody could judge, and what is labelled already.

    Labels of answers that are not here now stay: another configuration may bring them back.

    Returns:
        Lines that have no label yet.
    """
    lines = [
        _line(record, name, labels.get(_key(record, name)))
        for record in records
        for name in record["answer"]
        if _key(record, name) in labels or _is_doubtful(record, name)
    ]
    here = {_key(record, name) for record in records for name in record["answer"]}
    elsewhere = [line for _, line in _numbered_lines(file) if line.get("label") and _key_of(line) not in here]
    write_text_atomically(file, to_lines([*lines, *elsewhere]))
    return sum(line["label"] is None for line in lines)


def _is_doubtful(record: Record, name: str) -> bool:
    check, judged = record["checks"][name], record["judged"].get(name)
    if judged is None:
        return bool(check["verdict"] == Verdict.UNJUDGED)
    if judged["verdict"] == Verdict.UNJUDGED:
        return bool(judged["is_final"] and record["fields"][name] == Verdict.UNJUDGED)
    return bool(check["verdict"] not in (judged["verdict"], Verdict.UNJUDGED))


def _line(record: Record, name: str, label: str | None) -> dict[str, Any]:
    judged = record["judged"].get(name, {})
    return {
        "label": label,
        "data_set": record["data_set"],
        "id": record["id"],
        "sample": record["sample"],
        "segment": name,
        "question": conversation_of(record),
        "reference": record["reference"][name],
        "answer": record["answer"][name],
        "check": record["checks"][name]["verdict"],
        "check_reason": record["checks"][name]["reason"],
        "judge": judged.get("verdict"),
        "judge_reason": judged.get("reason"),
    }


def _key(record: Record, name: str) -> Key:
    return record["data_set"], record["id"], record["sample"], name, record["answer"][name]


def _key_of(line: Record) -> Key:
    return line["data_set"], line["id"], line["sample"], line["segment"], line["answer"]


def _numbered_lines(file: Path) -> Iterator[tuple[int, Record]]:
    """The lines with their numbers; a person's editor may leave out the last line's end.

    Raises:
        DataError: a line is no JSON object, or lacks what says of which answer it is.
    """
    if not file.exists():
        return
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    for number, text in enumerate(lines, start=1):
        if text.strip():
            yield number, _line_of(f"{file}:{number}", text)


def _line_of(place: str, text: str) -> Record:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: the line is no JSON object ({error}); a label stands between quotes") from error
    if not isinstance(line, dict):
        raise DataError(f"{place}: the line is no JSON object, but a {type(line).__name__}")
    for name, kind in _KEY_TYPES.items():
        if type(line.get(name)) is not kind:
            raise DataError(f"{place}: {name} must be a {kind.__name__}; change nothing in a line but its label")
    return line
