"""A comparison as a self-contained HTML page: tables, figures, outputs side by side, provenance.

Everything that a model wrote is treated as data: the template escapes it, and the page's script inserts it as text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from sftkey_dist.evaluation.conversation import conversation_of
from sftkey_dist.evaluation.diagnosis import Finding
from sftkey_dist.evaluation.power import seen_over_questions
from sftkey_dist.files import to_json
from sftkey_dist.report.cautions import cautions
from sftkey_dist.report.charts import Chart
from sftkey_dist.report.commonest import CommonestAnswer
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.confusion import CONFUSION, confusions
from sftkey_dist.report.forgetting import FORGETTING, FORGETTING_HEADS, forgotten_in_words
from sftkey_dist.report.headline import headline
from sftkey_dist.report.numbers import (
    GUIDED,
    RANKED_BY,
    bounds,
    bounds_note,
    number,
    p_value,
    unjudgeable_note,
    yield_note,
)
from sftkey_dist.report.provenance import RunFacts, settings_that_differ
from sftkey_dist.report.published import published_rows
from sftkey_dist.report.same_model import kept_in_words
from sftkey_dist.report.swapped import swap_tables
from sftkey_dist.report.underpowered import SMALLEST_SEEN, UNCORRECTED, too_few_questions
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord
from sftkey_dist.run_dir.artifacts.kinds import to_plain
from sftkey_dist.visible import INVISIBLE, encodable, without_control

_ESCAPED = re.compile(f"[<>&]|{INVISIBLE}")
_MAX_QUESTIONS = 400
_LONGEST_TEXT = 6000
_FILTERS = (kept_in_words, number, bounds, p_value, bounds_note, unjudgeable_note, yield_note, seen_over_questions)


def render_page(
    comparison: Comparison,
    charts: Sequence[Chart],
    findings: Mapping[str, Sequence[Finding]],
    facts: Sequence[RunFacts],
) -> str:
    """The page.

    Args:
        comparison: what is compared.
        charts: figures to embed.
        findings: of each row, by label.
        facts: about each run.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sftkey_dist.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {make.__name__: make for make in _FILTERS}
    questions = side_by_side(comparison)
    rows = list(zip(comparison.labels, comparison.rows, strict=True))
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        headline=headline(comparison),
        commonest=CommonestAnswer.of(comparison),
        rows=rows,
        cautions=cautions(comparison),
        guided_note=GUIDED,
        ranked_by=RANKED_BY,
        smallest_seen=SMALLEST_SEEN,
        uncorrected=UNCORRECTED,
        too_few_questions=too_few_questions(comparison.tests),
        data_sets=list(dict.fromkeys(name for _, row in rows for name in row.by_data_set)),
        charts=[(chart, Markup(_inline(chart.file))) for chart in charts],  # noqa: S704 (our own figures)
        forgetting=comparison.forgetting,
        forgetting_heads=FORGETTING_HEADS,
        forgetting_note=FORGETTING,
        forgotten=forgotten_in_words(comparison.forgetting),
        swapped=swap_tables(comparison),
        shown_ids={question.id for question in questions},
        some_cut_off=any(row.scores.truncated for row in comparison.rows),
        findings=findings,
        facts=facts,
        differing=settings_that_differ(facts),
        confusions=confusions(comparison),
        confusion_note=CONFUSION,
        published=list(dict.fromkeys(row for fact in facts for row in published_rows(fact.model, fact.adapters))),
        questions=Markup(_as_script_data(to_plain(questions))),  # noqa: S704 (escaped for a script element)
        num_questions=len(questions),
        num_all=len({key for records in comparison.records.values() for key in map(_question_key, records)}),
    )


@dataclass(frozen=True)
class ShownOutput:
    """An output of a strategy."""

    text: str
    answer: Mapping[str, str]
    verdict: str
    reason: str
    violation: str | None


@dataclass(frozen=True)
class ShownQuestion:
    """A question with the outputs of all strategies, by label."""

    id: str
    data_set: str
    prompt: str
    reference: Mapping[str, str]
    outputs: dict[str, ShownOutput]


def side_by_side(comparison: Comparison) -> list[ShownQuestion]:
    """Questions with the output of each strategy. Those with different verdicts come first."""
    questions: dict[tuple[str, str, str], ShownQuestion] = {}
    for label, records in comparison.records.items():
        for record in (record for record in records if record.sample == 0):
            question = questions.setdefault(_question_key(record), _shown_question(record))
            question.outputs[label] = ShownOutput(
                text=record.output[:_LONGEST_TEXT],
                answer=record.answer,
                verdict=record.verdict,
                reason=record.reason,
                violation=record.violation,
            )
    ordered = sorted(questions.values(), key=lambda question: len({o.verdict for o in question.outputs.values()}) < 2)
    return ordered[:_MAX_QUESTIONS]


def _shown_question(record: EvaluationRecord) -> ShownQuestion:
    reference = {name: text[:_LONGEST_TEXT] for name, text in record.reference.items()}
    return ShownQuestion(record.id, record.data_set, conversation_of(record)[:_LONGEST_TEXT], reference, {})


def _question_key(record: EvaluationRecord) -> tuple[str, str, str]:
    """The same id may be of another question, in a run with an earlier version of a file."""
    return record.data_set, record.id, record.prompt


def _shown(value: object) -> object:
    """Text for the template, without characters that affect the page. It is escaped afterwards."""
    return encodable(without_control(value)) if type(value) is str else value


def _inline(svg: Path) -> str:
    """The SVG without the XML declaration, which is only valid at the start of a file."""
    text = svg.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _as_script_data(content: object) -> str:
    """JSON that cannot end its script element. Invisible characters are written as escapes."""
    return _ESCAPED.sub(lambda match: _escape(match.group()), to_json(content))


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if character.isascii() else json.dumps(character)[1:-1]
