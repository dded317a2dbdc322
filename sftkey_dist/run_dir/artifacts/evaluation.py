"""The files of an evaluation: generations.jsonl, records.jsonl, scores.json, review.jsonl, and rulings of judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from sftkey_dist.data.example import Turn
from sftkey_dist.evaluation.generation.decoding import Generation
from sftkey_dist.evaluation.verdict import Judgement, Verdict
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile, Measured, absent_with

_ASKED_AGAIN = "remove that line, or restore the file from a copy: judges are asked again for missing rulings"
_SCORED_AGAIN = "remove it and evaluate again"

Interval = tuple[Measured, Measured]


@dataclass(frozen=True)
class RespondingModel:
    """model.json beside responses: the model that generated them.

    Attributes:
        weights_digest: digest of the weights; None where the stage did not note any.
        is_renewed: whether there were responses of other weights from the same settings before.
    """

    weights_digest: str | None
    is_renewed: bool = False


@dataclass(frozen=True)
class GenerationRecord:
    """A line of generations.jsonl: the outputs for one example, one per sample."""

    data_set: str
    id: str
    samples: tuple[Generation, ...]

    @property
    def key(self) -> tuple[str, str]:
        """The example: two test sets may use the same ids."""
        return self.data_set, self.id


@dataclass(frozen=True)
class JudgedAnswer:
    """The jury's verdict on an answer.

    Attributes:
        verdict: verdict of the majority; unjudged without a majority.
        reason: the judge's reason, or why there is no verdict.
        unjudgeable: name of the failure that the candidate's text causes.
        votes: the value of each judge, or why it gave none.
        is_final: whether asking again cannot change the verdict.
    """

    verdict: Verdict
    reason: str
    unjudgeable: str
    votes: dict[str, str]
    is_final: bool


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """A line of records.jsonl: the evaluation of one output. Mappings are keyed by segment name.

    Attributes:
        id: id of the example.
        data_set: name of the test set.
        sample: number of the output among the outputs for the example.
        same_answer_as: number of the first output with the same answer; None if there is one output.
        prompt: the last user message.
        history: the turns before it.
        output: generated text.
        reference: reference text of every segment.
        answer: answer found for each key segment.
        answer_source: how the answer was found; ``whole`` if nothing marks it.
        segments: text of each segment, if the output keeps the contract.
        checks: judgement of the deterministic check on each key segment.
        judged: verdict of the jury on each key segment that it was asked about.
        judge_decides: whether the jury's verdicts take precedence over the checks.
        labels: human verdicts.
        keeps_contract: whether the output keeps the contract.
        violation: kind of violation of the contract.
        violation_detail: the violation in words.
        num_tokens: number of generated tokens.
        truncated: whether the output was cut off at the token limit.
        fields: final verdict on each key segment.
        verdict: final verdict on the whole output.
        reason: reason of the verdict, in words.
        unjudgeable: name of the failure that the candidate's text causes.
        explanation_rating: rating from 1 to 5; None if no judge gave one.
        explanation_reason: the judge's reason; None if no judge was asked.
        explanation_is_open: whether asking again may give a rating; None if no judge was asked.
    """

    id: str
    data_set: str
    sample: int
    same_answer_as: int | None = field(default=None, metadata=absent_with("same_answer_as"))
    prompt: str
    history: tuple[Turn, ...] = ()
    tool_turns: tuple[Turn, ...] | None = field(default=None, metadata=absent_with("tool_turns"))
    output: str
    reference: Mapping[str, str]
    answer: Mapping[str, str]
    answer_source: Mapping[str, str]
    segments: Mapping[str, str]
    checks: Mapping[str, Judgement] = field(default_factory=dict)
    judged: Mapping[str, JudgedAnswer] = field(default_factory=dict)
    judge_decides: bool = True
    labels: Mapping[str, Verdict] = field(default_factory=dict)
    keeps_contract: bool
    violation: str | None
    violation_detail: str = ""
    num_tokens: int
    truncated: bool
    fields: Mapping[str, Verdict] = field(default_factory=dict)
    verdict: Verdict = Verdict.UNJUDGED
    reason: str = ""
    unjudgeable: str = ""
    explanation_rating: int | None = field(default=None, metadata=absent_with("explanation_reason"))
    explanation_reason: str | None = field(default=None, metadata=absent_with("explanation_reason"))
    explanation_is_open: bool | None = field(default=None, metadata=absent_with("explanation_reason"))


@dataclass(frozen=True)
class Scores:
    """The measures of an evaluation, or of one of its test sets.

    Attributes:
        n: number of outputs, i.e. questions times samples.
        accuracy: correct / judged. A failing judge does not count as a wrong answer, but an unjudgeable text does; see
            `verdict`.
        accuracy_bounds: accuracy if all unjudged outputs were wrong, and if all were right.
        format: share of outputs that keep the contract.
        parser_success: share of outputs in which every key segment was found at its mark, even if they break the
            contract.
        score: alpha * accuracy + (1 - alpha) * format. Strategies are ranked by `lowest_score` instead.
        strict_score: the score if an output that breaks the contract counts as 0 in both terms.
        alpha: weight of accuracy.
        unjudged: number of outputs without a verdict.
        unjudged_reasons: their number by reason.
        truncated: number of outputs cut off at the token limit.
        violations: number of outputs by the contract rule that they break.
        accuracy_interval: 95 % interval (Wilson), clustered by question; see `statistics`.
        format_interval: 95 % interval (Wilson), clustered by question.
        score_interval: 95 % interval, composed of the other two; (0, 1) if nothing was judged.
        fields: accuracy of each key segment.
        pass_at_k: probability that at least one of k samples is correct, by k; empty with one sample per question.
        majority_accuracy: accuracy of each question's most frequent answer (self-consistency).
        explanation_rating: mean of the judges' ratings, 1 to 5; None if there are none.
        unjudgeable: number of incorrect outputs whose text makes judges fail, by the name of the failure.
    """

    n: int
    accuracy: Measured
    accuracy_bounds: Interval
    format: float
    parser_success: float
    score: Measured
    strict_score: Measured
    alpha: float
    unjudged: int
    unjudged_reasons: dict[str, int]
    truncated: int
    violations: dict[str, int]
    accuracy_interval: Interval
    format_interval: Interval
    score_interval: Interval
    fields: dict[str, Measured] = field(default_factory=dict)
    pass_at_k: dict[str, float] = field(default_factory=dict)
    majority_accuracy: float | None = None
    explanation_rating: float | None = None
    unjudgeable: dict[str, int] = field(default_factory=dict)

    @property
    def lowest_accuracy(self) -> float:
        """Accuracy with all unjudged outputs counted as wrong. Ranking uses it, so missing verdicts never help."""
        return self.accuracy_bounds[0]

    @property
    def lowest_score(self) -> float:
        """The score with all unjudged outputs counted as wrong."""
        return composite(self.lowest_accuracy, self.format, self.alpha)


def composite(accuracy: float, format_share: float, alpha: float) -> float:
    """Score = alpha * Acc + (1 - alpha) * Fmt (arXiv:2512.21017, evaluation metrics)."""
    return (alpha * accuracy if alpha else 0.0) + (1 - alpha) * format_share  # accuracy may be nan if alpha is 0


@dataclass(frozen=True)
class MacroAverage:
    """Unweighted means over the test sets, as the paper reports them."""

    accuracy: Measured
    format: float
    score: Measured
    strict_score: Measured


@dataclass(frozen=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        n: number of answers that both judged.
        share: share of these answers with equal verdicts.
        kappa: Cohen's kappa, the agreement beyond chance; None if both always give the same verdict.
    """

    n: int
    share: float
    kappa: float | None


@dataclass(frozen=True)
class JudgeUse:
    """How often judges were asked, how often a ruling was cached, and how often they failed.

    Attributes:
        asked: number of questions that were sent to judges.
        remembered: number of questions whose ruling was cached.
        failures: number of questions without a ruling, by the name of the failure.
        messages: message of the server at the first failure of each name.
        notes: request parameters that had to be renamed or left out, one note each.
    """

    asked: int
    remembered: int
    failures: dict[str, int]
    messages: dict[str, str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class EvaluationScores(Scores):
    """scores.json: the scores over all test sets, with details.

    Attributes:
        data_sets: scores of each test set.
        macro_average: mean over the test sets.
        agreement: agreement between judges, checks and human labels, as far as there are two of them.
        to_review: number of answers that need a human label.
        judges: use of the judges, for answers and for explanations.
        is_complete: whether no verdict is missing for a transient reason.
        scoring_digest: digest of everything that turns generations into scores.
        guided: true if decoding was guided, else None.
    """

    data_sets: dict[str, Scores]
    macro_average: MacroAverage
    agreement: dict[str, Agreement]
    to_review: int
    judges: dict[str, JudgeUse] = field(default_factory=dict)
    is_complete: bool
    scoring_digest: str = ""
    guided: bool | None = field(default=None, metadata=absent_with("guided"))

    @property
    def of_all(self) -> Scores:
        """The scores over all test sets, without the details."""
        return Scores(**{of_scores.name: getattr(self, of_scores.name) for of_scores in fields(Scores)})


@dataclass(frozen=True)
class ScoringState:
    """scores.json, restricted to what tells whether its scores are up to date."""

    is_complete: bool = False
    scoring_digest: str = ""


@dataclass(frozen=True)
class ReviewLine:
    """A line of review.jsonl: an answer for human review.

    Attributes:
        label: ``correct`` or ``incorrect``, written by the reviewer.
        data_set: name of the test set.
        id: id of the example.
        sample: number of the output.
        segment: name of the segment.
        question: the conversation before the output.
        reference: reference text of the segment.
        answer: answer found for the segment.
        check: verdict of the check.
        check_reason: its reason, in words.
        judge: verdict of the judges; None if they were not asked.
        judge_reason: their reason; None if they were not asked.
    """

    label: Verdict | None
    data_set: str
    id: str
    sample: int
    segment: str
    question: str
    reference: str
    answer: str
    check: Verdict
    check_reason: str
    judge: Verdict | None
    judge_reason: str | None


@dataclass(frozen=True)
class RulingRecord:
    """What one judge said, with the digest of the question as its key."""

    key: str
    value: str
    reason: str


GENERATIONS, RECORDS = Journal(GenerationRecord), Journal(EvaluationRecord)
RESPONDING_MODEL = JsonFile(RespondingModel, "remove it")
SCORES, SCORING_STATE = JsonFile(EvaluationScores, _SCORED_AGAIN), JsonFile(ScoringState, _SCORED_AGAIN)
RULINGS = Journal(RulingRecord, _ASKED_AGAIN)
