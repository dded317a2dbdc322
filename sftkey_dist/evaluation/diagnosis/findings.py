"""Findings: what is wrong in how many outputs, in plain words, and what to do about it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from sftkey_dist.evaluation.diagnosis.learning import StageCurves, UselessStage
from sftkey_dist.evaluation.diagnosis.remedies import guard_advice, remedies_for
from sftkey_dist.evaluation.diagnosis.signs import conclusion_reader, contradicts, copied_share, is_looping
from sftkey_dist.evaluation.score import expected_sources
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord

_WORTH_SAYING = 0.02
_COPIED = 0.6
_LEARNED_NLL = 0.1
_MANY = 0.1
_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """A problem that outputs or metrics show.

    Attributes:
        kind: short, stable name.
        count: number of outputs that show it; 0 for a finding from metrics.
        of: number of outputs that were examined.
        sentence: what the finding means.
        remedy: what to try.
        examples: ids of outputs that show it.
    """

    kind: str
    count: int
    of: int
    sentence: str
    remedy: str
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Sign:
    """What outputs can show.

    Attributes:
        kind: short, stable name.
        find: the outputs that show it, among all.
        meaning: what is the matter with them.
        remedy: what to try where the training is not known.
    """

    kind: str
    find: Callable[[Sequence[EvaluationRecord]], list[EvaluationRecord]]
    meaning: str
    remedy: str


def diagnose(records: Sequence[EvaluationRecord], curves: StageCurves | None) -> list[Finding]:
    """Findings about a strategy's outputs, the most frequent first, then findings from its training.

    An output is counted with one finding: what comes first in `_SIGNS` is the cause of what comes later.
    """
    found = [finding for finding in _of_outputs(records) if finding.count >= _WORTH_SAYING * len(records)]
    found.sort(key=lambda finding: -finding.count)
    if curves is None:
        return found
    of_training = _of_training(records, curves)
    remedies = remedies_for(curves, {finding.kind for finding in of_training})
    return [replace(finding, remedy=remedies.get(finding.kind, finding.remedy)) for finding in found] + of_training


def _of_outputs(records: Sequence[EvaluationRecord]) -> list[Finding]:
    explained: set[int] = set()
    findings = []
    for sign in _SIGNS:
        shown = [record for record in sign.find(records) if id(record) not in explained]
        explained.update(map(id, shown))
        if shown:
            findings.append(_finding(sign, shown, records))
    return findings


def _looping(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if r.truncated and is_looping(r.output)]


def _truncated(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if r.truncated]


def _copies_the_prompt(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if r.verdict != Verdict.CORRECT and copied_share(r.output, r.prompt) > _COPIED]


def _without_answer(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if set(expected_sources(r)) == {"whole"}]


def _broken_but_right(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if r.verdict == Verdict.CORRECT and not r.keeps_contract]


def _contradicting(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    names = dict.fromkeys(name for record in records for name in record.answer)
    readers = {name: conclude for name in names if (conclude := conclusion_reader(records, name)) is not None}
    return [
        r for r in records if r.keeps_contract and any(contradicts(r, name, read) for name, read in readers.items())
    ]


def _wrong(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if r.verdict == Verdict.INCORRECT]


def _kept_but_wrong(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    return [r for r in records if r.verdict == Verdict.INCORRECT and r.keeps_contract]


_SIGNS = (
    _Sign(
        "repeats_itself",
        _looping,
        "the output repeats the same words until it is cut off",
        "a base model trained on answers alone (key-tag) often does this: train the whole response first, and for "
        "long enough",
    ),
    _Sign(
        "cut_off",
        _truncated,
        "the output was cut off before it ended",
        "raise evaluation.max_new_tokens (see the response lengths in the data report); if outputs never end, train "
        "the end-of-turn token (key_stage.end_of_turn=true)",
    ),
    _Sign(
        "copies_the_prompt",
        _copies_the_prompt,
        "the output repeats the question instead of answering it",
        "check prompt.template against the model (a base model needs `plain`); train for longer",
    ),
    _Sign(
        "no_answer_found",
        _without_answer,
        "there is no answer where one should be: nothing marks it",
        "the model has not learned the structure: train the whole response (sft-tag) before the answer",
    ),
    _Sign(
        "right_answer_broken_structure",
        _broken_but_right,
        "the answer is right but the structure is broken: a parser downstream would fail on an answer that is fine",
        "train the structure before the answer (sftkey-tag rather than key-tag), lower the last stage's learning rate "
        "or keep the guard's best model, train the tags in the key stage (key_stage.tags=true)",
    ),
    _Sign(
        "reasoning_contradicts_answer",
        _contradicting,
        "the reasoning comes to one conclusion and the answer says another: readers will not trust either",
        "check the training data for the same contradiction; train reasoning and answer together for longer (stage 1), "
        "then the answer with a lower learning rate",
    ),
    _Sign(
        "right_structure_wrong_answer",
        _kept_but_wrong,
        "the structure is right but the answer is wrong: the model knows how to respond, not yet what",
        "give the answer more of the training: a second stage on the answer (sftkey-tag), more epochs of it, or more "
        "examples of the cases that fail",
    ),
    _Sign(
        "wrong_otherwise",
        _wrong,
        "the answer is wrong, and the structure is broken in none of the ways above",
        "read some of them, in evaluation/…/records.jsonl of the run or on the comparison's page",
    ),
)
"""In the order in which one explains another."""


def _of_training(records: Sequence[EvaluationRecord], curves: StageCurves) -> list[Finding]:
    def finding(kind: str, sentence: str, remedy: str) -> Finding:
        return Finding(kind, 0, len(records), sentence, remedy)

    advice = guard_advice(curves)
    lower = f"lower the learning rate of stage {curves.name}"
    findings = [finding("stage_gained_nothing", *_about(stage)) for stage in curves.useless]
    drift = curves.drift() if curves.continues else {}
    if drift:
        what = ", ".join(f"{name} {before:.3f} -> {after:.3f}" for name, (before, after) in drift.items())
        sentence = (
            f"While stage {curves.name} trained the answer, the model got worse at what it did not train (nll in nats "
            f"per token: {what})."
        )
        remedy = f"{lower}, and {advice}" if advice else f"{lower}; the guard has kept the best of its models"
        findings.append(finding("last_stage_drifts", sentence, remedy))
    overfitted = curves.overfitted()
    if overfitted:
        what = ", ".join(f"{name} {lowest:.3f} -> {last:.3f}" for name, (lowest, last) in overfitted.items())
        sentence = (
            f"During stage {curves.name} the nll of held-out examples rose again in what the stage trains (nats per "
            f"token: {what}): it learns the training rows by heart."
        )
        fewer = "train for fewer epochs, with a lower learning rate, or on more rows"
        findings.append(finding("last_stage_overfits", sentence, f"{fewer}; {advice}" if advice else fewer))
    formats = [scored.format for scored in curves.guard]
    if formats and formats[-1] < max(formats) - _MANY:
        sentence = (
            f"During stage {curves.name} format fell from {max(formats):.2f} to {formats[-1]:.2f} on held-out examples."
        )
        remedy = f"{advice}, or {lower}" if advice else f"{lower}, or give format more weight (evaluation.alpha)"
        findings.append(finding("last_stage_breaks_format", sentence, remedy))
    if _reasoning_limits(records, curves):
        sentence = (
            "Given the right reasoning the model knows the answer, and yet many of its own outputs are wrong: the "
            "reasoning fails, not the answer."
        )
        remedy = (
            "more training of the answer will not help; use a larger model, more or better reasoning data, or longer "
            "training of the whole response"
        )
        findings.append(finding("reasoning_is_the_limit", sentence, remedy))
    return findings


def _about(stage: UselessStage) -> tuple[str, str]:
    """What a stage without effect means, and what to try."""
    if stage.guard is None:
        return (
            f"Stage {stage.name} changed no stored weight, so that these are the outputs of the model before it.",
            f"raise the learning rate of stage {stage.name}, or publish float32 (training.export_precision=float32)",
        )
    kept = stage.guard.in_words(stage.steps)
    sentence = f"These are the outputs of the model before stage {stage.name}, whose guard {kept}."
    more = "more held-out examples (validation.guard.num_examples) tell a small gain from none"
    if stage.guard.last_score < stage.guard.first_score:
        return sentence, f"lower the learning rate of stage {stage.name}; {more}"
    if stage.guard.first_score >= 1:
        return sentence, f"the score could not rise any more: {more}"
    return sentence, f"nothing was lost either: {more}"


def _reasoning_limits(records: Sequence[EvaluationRecord], curves: StageCurves) -> bool:
    """Whether the answer is known after the right reasoning, of examples that were not trained, and often wrong."""
    keys = dict.fromkeys(name for record in records for name in record.answer)
    nlls = [curves.held_out_nll(name) for name in keys]
    wrong = len(_kept_but_wrong(records))
    return all(nll is not None and nll < _LEARNED_NLL for nll in nlls) and wrong > _MANY * len(records)


def _finding(sign: _Sign, shown: Sequence[EvaluationRecord], records: Sequence[EvaluationRecord]) -> Finding:
    return Finding(
        kind=sign.kind,
        count=len(shown),
        of=len(records),
        sentence=f"In {len(shown)} of {len(records)} outputs ({len(shown) / len(records):.0%}) {sign.meaning}.",
        remedy=sign.remedy,
        examples=tuple(dict.fromkeys(record.id for record in shown))[:_EXAMPLES],
    )
