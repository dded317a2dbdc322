"""Signs of problems in a single output."""

import re
from collections.abc import Callable, Mapping, Sequence

from sftkey_dist.evaluation.answers.numbers import last_quantity, quantities_in, same_quantity
from sftkey_dist.evaluation.answers.text import normalized
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord

Conclude = Callable[[str, str], bool | None]
"""Whether a reasoning concludes with an answer; None if this cannot be determined."""

_MAX_LABELS = 20
_FEWEST_WORDS_REPEATED = 18
_LONGEST_PERIOD_WORDS = 60
_COPIED_WORDS = 8
_CALIBRATED_SHARE = 0.8
_LOOKED_AT_CHARACTERS = 600
_SENTENCE_END = re.compile(r"[.!?]\s+|\n")
_LOOPING_LETTERS = re.compile(r"(\S{1,40}?)\1{9,}\S{0,40}$")


def is_looping(text: str) -> bool:
    """Whether a text ends in a phrase repeated at least three times, or in a short string repeated ten times."""
    if _LOOPING_LETTERS.search(text[-_LOOKED_AT_CHARACTERS:]):
        return True
    words = text.split()
    for period in range(1, min(_LONGEST_PERIOD_WORDS, len(words) // 3) + 1):
        repeats = max(3, -(-_FEWEST_WORDS_REPEATED // period))
        tail = words[-period * repeats :]
        if len(tail) == period * repeats and tail == tail[:period] * repeats:
            return True
    return False


def copied_share(output: str, prompt: str) -> float:
    """Share of an output's 8-grams of words that also occur in the prompt."""
    runs = _runs(output)
    return len(runs & _runs(prompt)) / len(runs) if runs else 0.0


def conclusion_reader(records: Sequence[EvaluationRecord], segment: str) -> Conclude | None:
    """How to find the conclusion of a reasoning: the numbers, or the labels, in its last sentence that has any.

    None if the reasoning of the references does not end in their answer, so that the method would be unreliable.
    """
    references = [record.reference[segment] for record in records if record.reference[segment]]
    if not references:
        return None
    labels = sorted({normalized(text) for text in references})
    if all(map(_is_number, references)):
        conclude: Conclude = _numeric_conclusion
    elif len(labels) <= min(_MAX_LABELS, len(references) // 2) and all(labels):
        conclude = _label_conclusion(labels)
    else:
        return None
    outcomes = [_of_reference(record, segment, conclude) for record in records if record.reference[segment]]
    told = [outcome for outcome in outcomes if outcome is not None]
    is_calibrated = len(told) >= len(outcomes) / 2 and sum(told) >= _CALIBRATED_SHARE * len(told)
    return conclude if is_calibrated else None


def contradicts(record: EvaluationRecord, segment: str, conclude: Conclude) -> bool:
    """Whether the conclusion of an output's reasoning differs from its answer.

    If the same holds for the reference, for example because its reasoning is in dollars and its answer in cents, the
    question is not counted.
    """
    if conclude(reasoning_of(record.segments, record), record.answer[segment]) is not False:
        return False
    return _of_reference(record, segment, conclude) is not False


def reasoning_of(values: Mapping[str, str], record: EvaluationRecord) -> str:
    """The text of the segments that are not key segments."""
    return "\n".join(text for name, text in values.items() if name not in record.answer)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.casefold().split()
    return {tuple(words[i : i + _COPIED_WORDS]) for i in range(len(words) - _COPIED_WORDS + 1)}


def _of_reference(record: EvaluationRecord, segment: str, conclude: Conclude) -> bool | None:
    return conclude(reasoning_of(record.reference, record), record.reference[segment])


def _last_sentence_with(text: str, holds: Callable[[str], object]) -> str:
    """The last sentence for which ``holds`` is true, or ""."""
    return next((sentence for sentence in reversed(_SENTENCE_END.split(text)) if holds(sentence)), "")


def _numeric_conclusion(reasoning: str, answer: str) -> bool | None:
    """Whether the last sentence with a number contains the answer, after its equals sign if numbers follow one."""
    sentence = _last_sentence_with(reasoning, last_quantity)
    given, named = last_quantity(answer), quantities_in(sentence.partition("=")[2]) or quantities_in(sentence)
    return any(same_quantity(one, given) for one in named) if given is not None and named else None


def _is_number(text: str) -> bool:
    quantity = last_quantity(text)
    return quantity is not None and quantity.is_whole


def _label_conclusion(labels: Sequence[str]) -> Conclude:
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(labels, key=len, reverse=True)))})(?!\w)")

    def conclude(reasoning: str, answer: str) -> bool | None:
        named = pattern.findall(_last_sentence_with(reasoning.casefold(), pattern.search))
        return normalized(answer) in named if named else None

    return conclude
