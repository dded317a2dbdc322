"""Findings: what is wrong in how many outputs, in plain words, and what to do about it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace

from sftkey_dist.evaluation.diagnosis.learning import StageCurves
from sftkey_dist.evaluation.diagnosis.signs import conclusion_reader, contradicts, copied_share, is_looping
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


def diagnose(records: Sequence[EvaluationRecord], curves: StageCurves | None) -> list[Finding]:
    """Findings about a strategy's outputs, the most frequent first, then findings from its last stage's metrics."""
    found = [finding for make in _OF_RECORDS if (finding := make(records)).count >= _WORTH_SAYING * len(records)]
    found.sort(key=lambda finding: -finding.count)
    if curves is None:
        return found
    of_metrics = _of_metrics(records, curves)
    remedies = _remedies(curves, {finding.kind for finding in of_metrics})
    return [replace(finding, remedy=remedies.get(finding.kind, finding.remedy)) for finding in found] + of_metrics


def _remedies(curves: StageCurves, of_metrics: Collection[str]) -> dict[str, str]:
    """Remedies for a strategy whose training is known: what it has done already does not help."""
    remedies = {}
    if curves.continues:
        remedies = {
            "right_answer_broken_structure": "lower the last stage's learning rate, keep the guard's best model, or "
            "train the tags too (key_stage.tags=true)",
            "right_structure_wrong_answer": "train the answer for more epochs "
            "(key_stage.optimization.num_epochs), or add examples of the cases that fail",
            "no_answer_found": "look at the strategy that ends before the last stage: if its outputs have answers, "
            "lower the last stage's learning rate or use validation.guard; otherwise raise "
            "optimization.learning_rate or optimization.num_epochs",
        }
    elif curves.trains_structure:
        remedies = {
            "right_answer_broken_structure": "raise optimization.num_epochs: the structure is not learned yet",
            "no_answer_found": "the whole response was trained and its structure not learned: raise "
            "optimization.learning_rate (a model with random weights needs about 1e-3) or optimization.num_epochs",
            "repeats_itself": "raise optimization.num_epochs, or lower the learning rate if the loss was not stable",
        }
    if "reasoning_is_the_limit" in of_metrics:
        remedies["right_structure_wrong_answer"] = "begin with the reasoning; see below"
    return remedies


def _broken_but_right(records: Sequence[EvaluationRecord]) -> Finding:
    shown = [r for r in records if r.verdict == Verdict.CORRECT and not r.keeps_contract]
    return _finding(
        "right_answer_broken_structure",
        shown,
        records,
        "the answer is right but the structure is broken: a parser downstream would fail on an answer that is fine",
        "train the structure before the answer (sftkey-tag rather than key-tag), lower the last stage's learning rate "
        "or keep the guard's best model, train the tags in the key stage (key_stage.tags=true)",
    )


def _kept_but_wrong(records: Sequence[EvaluationRecord]) -> Finding:
    shown = [r for r in records if r.verdict == Verdict.INCORRECT and r.keeps_contract]
    return _finding(
        "right_structure_wrong_answer",
        shown,
        records,
        "the structure is right but the answer is wrong: the model knows how to respond, not yet what",
        "give the answer more of the training: a second stage on the answer (sftkey-tag), more epochs of it, or more "
        "examples of the cases that fail",
    )


def _contradiction(records: Sequence[EvaluationRecord]) -> Finding:
    shown = []
    for name in dict.fromkeys(name for record in records for name in record.answer):
        conclude = conclusion_reader(records, name)
        if conclude is not None:
            shown += [r for r in records if r.keeps_contract and contradicts(r, name, conclude)]
    return _finding(
        "reasoning_contradicts_answer",
        shown,
        records,
        "the reasoning comes to one conclusion and the answer says another: readers will not trust either",
        "check the training data for the same contradiction; train reasoning and answer together for longer (stage 1), "
        "then the answer with a lower learning rate",
    )


def _truncated(records: Sequence[EvaluationRecord]) -> Finding:
    return _finding(
        "cut_off",
        [r for r in records if r.truncated and not is_looping(r.output)],
        records,
        "the output was cut off before it ended",
        "raise evaluation.max_new_tokens (see the response lengths in the data report); if outputs never end, train "
        "the end-of-turn token (key_stage.end_of_turn=true)",
    )


def _looping(records: Sequence[EvaluationRecord]) -> Finding:
    return _finding(
        "repeats_itself",
        [r for r in records if is_looping(r.output)],
        records,
        "the output repeats the same words until it is cut off",
        "train longer or with a lower learning rate; a base model trained on answers alone (key-tag) often does this: "
        "train the whole response first",
    )


def _copies_the_prompt(records: Sequence[EvaluationRecord]) -> Finding:
    shown = [r for r in records if r.verdict != Verdict.CORRECT and copied_share(r.output, r.prompt) > _COPIED]
    return _finding(
        "copies_the_prompt",
        shown,
        records,
        "the output repeats the question instead of answering it",
        "check prompt.template against the model (a base model needs `plain`); train for longer",
    )


def _no_answer(records: Sequence[EvaluationRecord]) -> Finding:
    return _finding(
        "no_answer_found",
        [r for r in records if all(source == "whole" for source in r.answer_source.values())],
        records,
        "there is no answer where one should be: nothing marks it",
        "the model has not learned the structure: train the whole response (sft-tag) before the answer",
    )


def _of_metrics(records: Sequence[EvaluationRecord], curves: StageCurves) -> list[Finding]:
    findings = []
    drift = curves.drift() if curves.continues else {}
    if drift:
        what = ", ".join(f"{name} {before:.3f} -> {after:.3f}" for name, (before, after) in drift.items())
        findings.append(
            Finding(
                "last_stage_drifts",
                0,
                len(records),
                f"While stage {curves.name} trained the answer, the model got worse at what it did not train (nll in "
                f"nats per token: {what}).",
                "lower the stage's learning rate or its steps, and use validation.guard to keep the best model",
            )
        )
    formats = [scored.format for scored in curves.guard]
    if formats and formats[-1] < max(formats) - _MANY:
        findings.append(
            Finding(
                "last_stage_breaks_format",
                0,
                len(records),
                f"During stage {curves.name} format fell from {max(formats):.2f} to {formats[-1]:.2f} on held-out "
                f"examples.",
                "keep the best model (validation.guard.keep=best), stop early (patience), lower the learning rate",
            )
        )
    if _reasoning_limits(records, curves):
        findings.append(
            Finding(
                "reasoning_is_the_limit",
                0,
                len(records),
                "Given the right reasoning the model knows the answer, and yet many of its own outputs are wrong: the "
                "reasoning fails, not the answer.",
                "more training of the answer will not help; use a larger model, more or better reasoning data, or "
                "longer training of the whole response",
            )
        )
    return findings


def _reasoning_limits(records: Sequence[EvaluationRecord], curves: StageCurves) -> bool:
    keys = dict.fromkeys(name for record in records for name in record.answer)
    nlls = [curves.nll(name, at_end=True) for name in keys]
    wrong = sum(r.verdict == Verdict.INCORRECT for r in records)
    return all(nll is not None and nll < _LEARNED_NLL for nll in nlls) and wrong > _MANY * len(records)


def _finding(
    kind: str, shown: Sequence[EvaluationRecord], records: Sequence[EvaluationRecord], meaning: str, remedy: str
) -> Finding:
    share = len(shown) / len(records) if records else 0.0
    return Finding(
        kind=kind,
        count=len(shown),
        of=len(records),
        sentence=f"In {len(shown)} of {len(records)} outputs ({share:.0%}) {meaning}.",
        remedy=remedy,
        examples=tuple(record.id for record in shown[:_EXAMPLES]),
    )


_OF_RECORDS: tuple[Callable[[Sequence[EvaluationRecord]], Finding], ...] = (
    _broken_but_right,
    _kept_but_wrong,
    _contradiction,
    _no_answer,
    _truncated,
    _looping,
    _copies_the_prompt,
)
