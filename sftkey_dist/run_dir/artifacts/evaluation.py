"""What an evaluation writes: generations.jsonl, records.jsonl, scores.json and review.jsonl; and rulings of judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from sftkey_dist.data.example import Turn
from sftkey_dist.evaluation.generation.decoding import Generation
from sftkey_dist.evaluation.verdict import Judgement, Verdict
from sftkey_dist.run_dir.artifacts.kinds import Journal, JsonFile, Measured, absent_with

_ASKED_AGAIN = "remove that line, or restore the file from a copy: what is missing is asked again"
_SCORED_AGAIN = "remove it and evaluate again"

Interval = tuple[Measured, Measured]


@dataclass(frozen=True)
class GenerationRecord:
    """A line of generations.jsonl: the outputs for one example, one a sample."""

    data_set: str
    id: str
    samples: tuple[Generation, ...]


@dataclass(frozen=True)
class JudgedAnswer:
    """What a jury holds of an answer.

    Attributes:
        verdict: of the majority, unjudged without one.
        reason: the judge's, or why there is no verdict.
        unjudgeable: name of the failure that the candidate's text causes.
        votes: each judge's value, or why it has none.
        is_final: whether asking again would change nothing.
    """

    verdict: Verdict
    reason: str
    unjudgeable: str
    votes: dict[str, str]
    is_final: bool


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """A line of records.jsonl: what is said of one output. What is by segment has the segment's name as its key.

    Attributes:
        id: of the example.
        data_set: test set.
        sample: number of the output among those for the example.
        prompt: the last user message.
        history: what was said before it.
        output: generated text.
        reference: of every segment.
        answer: found in key segments.
        answer_source: how it was found; ``whole`` where nothing marks it.
        segments: of an output that keeps the contract.
        checks: what deterministic checks say of key segments.
        judged: what juries say of those that they were asked about.
        judge_decides: whether that decides.
        labels: a person's verdicts.
        keeps_contract: whether the output does.
        violation: kind of its violation.
        violation_detail: in words.
        num_tokens: generated.
        truncated: whether the output was cut off at the limit of tokens.
        fields: the verdict on each key segment.
        verdict: on all of them.
        reason: of the verdict, in words.
        unjudgeable: name of the failure that the candidate's text causes.
        explanation_rating: 1 to 5; None where no judge gave one.
        explanation_reason: the judge's; None where nobody was asked.
        explanation_is_open: whether asking again may give a rating; None where nobody was asked.
    """

    id: str
    data_set: str
    sample: int
    prompt: str
    history: tuple[Turn, ...] = ()
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
    """The measures of one evaluation, or of one test set of it.

    Attributes:
        n: outputs; questions times samples.
        accuracy: correct / judged: a failing judge never counts as a wrong answer, an unjudgeable text does; see
            `verdict`.
        accuracy_bounds: accuracy if all unjudged were wrong, and if all were right.
        format: share of outputs that keep the contract.
        parser_success: share of outputs in which every key segment was found at its mark, contract kept or not.
        score: alpha * accuracy + (1 - alpha) * format. What ranks is `lowest_score`.
        strict_score: the same where an output that breaks the contract scores 0 in both.
        alpha: weight of accuracy.
        unjudged: outputs without a verdict.
        unjudged_reasons: why.
        truncated: outputs cut at the token limit.
        violations: how many outputs broke which rule of the contract.
        accuracy_interval: 95 %, Wilson's over questions; see `statistics`.
        format_interval: likewise.
        score_interval: likewise, of both together; the whole of [0, 1] where nothing was judged.
        fields: accuracy of each key segment.
        pass_at_k: chance that one of k samples is right, by k; empty without samples.
        majority_accuracy: accuracy of the answer that most samples of a question give (self-consistency).
        explanation_rating: mean of the judges' ratings, 1 to 5, where they were asked.
        unjudgeable: incorrect outputs whose text kept them from being judged, by the name of the failure.
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
        """With all unjudged outputs counted as wrong: what strategies are ranked by, so that a gap never pays."""
        return self.accuracy_bounds[0]

    @property
    def lowest_score(self) -> float:
        """The score with all unjudged outputs counted as wrong."""
        return composite(self.lowest_accuracy, self.format, self.alpha)


def composite(accuracy: float, format_share: float, alpha: float) -> float:
    """Score = alpha * Acc + (1 - alpha) * Fmt (arXiv:2512.21017, evaluation metrics)."""
    return (alpha * accuracy if alpha else 0.0) + (1 - alpha) * format_share  # without weight it may be unknown


@dataclass(frozen=True)
class MacroAverage:
    """Means over test sets, each counting the same however large (the paper's averages)."""

    accuracy: Measured
    format: float
    score: Measured
    strict_score: Measured


@dataclass(frozen=True)
class Agreement:
    """How often two raters say the same.

    Attributes:
        n: answers that both judged.
        share: of them with equal verdicts.
        kappa: Cohen's, agreement beyond chance; None where both give one verdict throughout.
    """

    n: int
    share: float
    kappa: float | None


@dataclass(frozen=True)
class JudgeUse:
    """How often judges were asked, and how often it was not needed or in vain.

    Attributes:
        asked: questions to judges.
        remembered: questions that had been answered before.
        failures: questions without a ruling, by the name of the reason.
        messages: what a server said with the first failure of each name.
        notes: in what judges had to be asked otherwise than others.
    """

    asked: int
    remembered: int
    failures: dict[str, int]
    messages: dict[str, str]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class EvaluationScores(Scores):
    """scores.json: the scores over all test sets, and what belongs to them.

    Attributes:
        data_sets: scores of each test set.
        macro_average: over test sets.
        agreement: of judges, checks and a person, where there are two of them.
        to_review: answers that a person should look at.
        judges: what they were asked about, and how often.
        is_complete: whether no verdict is missing for a reason that may pass.
        scoring_digest: of everything that turns generations into scores.
    """

    data_sets: dict[str, Scores]
    macro_average: MacroAverage
    agreement: dict[str, Agreement]
    to_review: int
    judges: dict[str, JudgeUse] = field(default_factory=dict)
    is_complete: bool
    scoring_digest: str = ""

    @property
    def of_all(self) -> Scores:
        """The scores over all test sets alone."""
        return Scores(**{of_scores.name: getattr(self, of_scores.name) for of_scores in fields(Scores)})


@dataclass(frozen=True)
class ScoringState:
    """scores.json, as far as it says whether its scores are those that are asked for."""

    is_complete: bool = False
    scoring_digest: str = ""


@dataclass(frozen=True)
class ReviewLine:
    """A line of review.jsonl: an answer that a person should look at.

    Attributes:
        label: ``correct`` or ``incorrect``, written by the person.
        data_set: test set.
        id: of the example.
        sample: number of the output.
        segment: name.
        question: the conversation up to the output.
        reference: of the segment.
        answer: found in it.
        check: the check's verdict.
        check_reason: in words.
        judge: the judges' verdict; None where they were not asked.
        judge_reason: likewise.
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
    """What a judge said, under the digest of what it was asked."""

    key: str
    value: str
    reason: str


GENERATIONS, RECORDS = Journal(GenerationRecord), Journal(EvaluationRecord)
SCORES, SCORING_STATE = JsonFile(EvaluationScores, _SCORED_AGAIN), JsonFile(ScoringState, _SCORED_AGAIN)
RULINGS = Journal(RulingRecord, _ASKED_AGAIN)
