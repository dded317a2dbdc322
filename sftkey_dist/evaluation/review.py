"""Disagreement of judges and deterministic checks: how often it occurs, and a review file for human labels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.evaluation.agreement import agreement_of
from sftkey_dist.evaluation.conversation import conversation_of
from sftkey_dist.evaluation.record import with_labels
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.files import write_text_atomically
from sftkey_dist.run_dir.artifacts.evaluation import Agreement, EvaluationRecord, ReviewLine
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.run_dir.journal import Record, to_lines

Key = tuple[str, str, int, str, str, str]
"""Test set, record, sample, segment, answer and reference. A label belongs to one answer to one question only."""

_KEY_TYPES = {"data_set": str, "id": str, "sample": int, "segment": str, "answer": str, "reference": str}
_LABEL = "label"
_LABELS = (Verdict.CORRECT, Verdict.INCORRECT)


@dataclass(frozen=True)
class _FoundLine:
    """A line of a review file that a reviewer may have edited.

    Attributes:
        number: number of the line.
        key: the answer that the line is about.
        label: what the reviewer wrote, unchecked.
        content: the whole line, which is written back unchanged.
    """

    number: int
    key: Key
    label: object
    content: Record


def agreement_of_judge(records: Sequence[EvaluationRecord]) -> Agreement | None:
    """Agreement of the judges with the deterministic checks; None if no answer was judged by both."""
    return agreement_of(
        (verdict, record.checks[name].verdict) for record in records for name, verdict in _rulings(record).items()
    )


def agreements_with_person(records: Sequence[EvaluationRecord]) -> dict[str, Agreement]:
    """Agreement of the judges and of the checks with human labels."""
    labels = [(record, name, label) for record in records for name, label in record.labels.items()]
    found = {
        "check": agreement_of((record.checks[name].verdict, label) for record, name, label in labels),
        "judge": agreement_of(
            (rulings[name], label) for record, name, label in labels if name in (rulings := _rulings(record))
        ),
    }
    return {rater: agreement for rater, agreement in found.items() if agreement is not None}


def _rulings(record: EvaluationRecord) -> dict[str, Verdict]:
    """What judges have ruled on each key segment. A reply that nobody could read counts against the text, but is no
    ruling."""
    return {name: found.verdict for name, found in record.judged.items() if not found.unjudgeable}


def read_labels(file: Path) -> dict[Key, Verdict]:
    """The labels that a reviewer wrote into a review file.

    Raises:
        DataError: a label is neither `correct` nor `incorrect`, or a line is not a JSON object.
    """
    labels = {}
    for line in _lines(file):
        if line.label in (None, ""):
            continue
        if line.label not in _LABELS:
            raise DataError(f"{file}:{line.number}: label must be correct or incorrect, found {str(line.label)[:40]!r}")
        labels[line.key] = Verdict(str(line.label))
    return labels


def labelled(records: Sequence[EvaluationRecord], labels: Mapping[Key, Verdict]) -> list[EvaluationRecord]:
    """The records with the labels of their answers."""
    return [
        with_labels(record, {name: labels[key] for name in record.answer if (key := _key(record, name)) in labels})
        for record in records
    ]


def write_review(file: Path, records: Sequence[EvaluationRecord]) -> int:
    """Write the review file: disagreements, answers that could not be judged, and answers that already have a label.

    Labels are those that the file has now: a person may have written one since the records were made. Labels of answers
    that the records do not contain are kept too, because another configuration may produce these answers again.

    Returns:
        Number of lines without a label.

    Raises:
        DataError: as `read_labels`.
    """
    labels = read_labels(file)
    lines = [
        _line(record, name, labels.get(_key(record, name)))
        for record in records
        for name in record.answer
        if _key(record, name) in labels or _is_doubtful(record, name)
    ]
    here = {_key(record, name) for record in records for name in record.answer}
    elsewhere = [line.content for line in _lines(file) if line.label and line.key not in here]
    write_text_atomically(file, to_lines([*map(to_plain, lines), *elsewhere]))
    return sum(line.label is None for line in lines)


def _is_doubtful(record: EvaluationRecord, name: str) -> bool:
    check, judged = record.checks[name], record.judged.get(name)
    if judged is None:
        return check.verdict == Verdict.UNJUDGED
    if judged.verdict == Verdict.UNJUDGED:
        return judged.is_final and record.fields[name] == Verdict.UNJUDGED
    return check.verdict not in (judged.verdict, Verdict.UNJUDGED)


def _line(record: EvaluationRecord, name: str, label: Verdict | None) -> ReviewLine:
    judged = record.judged.get(name)
    return ReviewLine(
        label=label,
        data_set=record.data_set,
        id=record.id,
        sample=record.sample,
        segment=name,
        question=conversation_of(record),
        reference=record.reference[name],
        answer=record.answer[name],
        check=record.checks[name].verdict,
        check_reason=record.checks[name].reason,
        judge=judged.verdict if judged else None,
        judge_reason=judged.reason if judged else None,
    )


def _key(record: EvaluationRecord, name: str) -> Key:
    return record.data_set, record.id, record.sample, name, record.answer[name], record.reference[name]


def _lines(file: Path) -> Iterator[_FoundLine]:
    """The lines with their numbers. The last line may lack its line break, since some editors leave it out.

    Raises:
        DataError: a line is not a JSON object, or does not identify its answer.
    """
    if not file.exists():
        return
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    for number, text in enumerate(lines, start=1):
        if text.strip():
            yield _line_of(f"{file}:{number}", number, text)


def _line_of(place: str, number: int, text: str) -> _FoundLine:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: the line is not a JSON object ({error}); write the label between double quotes"
        ) from error
    if not isinstance(line, dict):
        raise DataError(f"{place}: the line is not a JSON object, but a {type(line).__name__}")
    for name, kind in _KEY_TYPES.items():
        if type(line.get(name)) is not kind:
            raise DataError(f"{place}: {name} must be a {kind.__name__}; change only the label of a line")
    data_set, example, sample, segment, answer, reference = (line[name] for name in _KEY_TYPES)
    return _FoundLine(number, (data_set, example, sample, segment, answer, reference), line.get(_LABEL), line)
