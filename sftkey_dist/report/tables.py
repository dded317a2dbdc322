"""Tables for the terminal. Their content is plain text, never markup."""

import math
import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sftkey_dist.data.report import DataReport
from sftkey_dist.data.segmenting.report import SegmentReport
from sftkey_dist.data.store import SourceCounts
from sftkey_dist.evaluation.agreement import JUDGE_AND_CHECK
from sftkey_dist.evaluation.diagnosis import Finding
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.forgetting import FORGETTING, FORGETTING_HEADS
from sftkey_dist.report.numbers import GUIDED, RANKED_BY, UNKNOWN, bounds_note, unjudgeable_note
from sftkey_dist.report.study.evidence import Evidence
from sftkey_dist.report.study.seed_cells import mean_cell, over_seeds
from sftkey_dist.report.swapped import swap_tables
from sftkey_dist.run_dir.artifacts.evaluation import Scores
from sftkey_dist.sampler.preview import BalancePreview

_NAMES = frozenset({"strategy", "measure", "first - second"})
"""Headings of columns that are not numbers."""

_BEFORE_A_BREAK = re.compile(r" (?=\[|of [\d,]+$)")
"""The space before an interval, or before the number of answers that a share is of."""


def comparison_table(comparison: Comparison) -> Table:
    """One line per strategy, with the score of a leader marked. It fits into 80 columns for one run.

    ``*`` at an accuracy: differs from the baseline on the same questions at the 5 % level (McNemar's exact test).
    """
    rows = comparison.rows
    several_runs, test_sets = len(comparison.run_dirs) > 1, ", ".join(dict.fromkeys(row.dataset for row in rows))
    some_unjudged = comparison.some_unjudged
    alpha, guided = comparison.alpha, ", guided" if comparison.guided else ""
    table = Table(
        title=Text(f"{test_sets}{guided}: score = {alpha:g} accuracy + {1 - alpha:g} format, 95 % intervals"),
        caption=Text("\n".join(_notes(comparison))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in (["run"] if several_runs else []) + ["strategy"]:
        table.add_column(heading, overflow="fold")  # only names are wrapped where there is no room
    for heading in ("accuracy", "format", "score"):
        table.add_column(heading, no_wrap=True)
    costs = [] if several_runs else ["train s", "loss tokens"]  # the files have them, and 80 columns no room
    for heading in ["n"] + (["unjudged"] if some_unjudged else []) + ["cut off", *costs]:
        table.add_column(heading, justify="right", overflow="fold")
    for label, row in zip(comparison.labels, rows, strict=True):
        scores = row.scores
        score = _over_interval(scores.score, scores.score_interval)
        if label == comparison.leader:
            score.stylize("bold green")
        mark = "*" if _differs_from_baseline(comparison, label) else ""
        table.add_row(
            *([Text(label.rpartition("/")[0])] if several_runs else []),
            Text(row.strategy),
            _accuracy(scores, mark),
            _over_interval(scores.format, scores.format_interval),
            score,
            str(scores.n),
            *([str(scores.unjudged)] if some_unjudged else []),
            str(scores.truncated),
            *([f"{row.train_seconds:.0f}", f"{row.loss_tokens:,}"] if costs else []),
        )
    return table


def study_table(study: Evidence) -> Table:
    """One line per strategy and variant of a study, with means over its seeds."""
    table = Table(
        title=Text(study.facts.title),
        caption=Text("brackets: 95 % intervals over seeds, where there are several"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in ("variant", "strategy"):
        table.add_column(heading, overflow="fold")
    for heading in ("accuracy", "format", "score"):
        table.add_column(heading)
    table.add_column("seeds", justify="right")
    for variant, results in study.results.items():
        for strategy, by_seed in results.items():
            means = (mean_cell(over_seeds(by_seed, name)) for name in ("accuracy", "format", "score"))
            table.add_row(Text(variant), Text(strategy), *map(Text, means), str(len(by_seed)))
    return table


def forgetting_table(comparison: Comparison) -> Table:
    """One row per strategy and measure, with intervals below their differences."""
    rows = [cells for label, found in comparison.forgetting.items() for cells in found.cells(label)]
    return _table("what the training changed beside the task", FORGETTING, FORGETTING_HEADS, rows)


def swapped_tables(comparison: Comparison) -> list[Table]:
    """What answers follow, with intervals below their values; none if it was not measured."""
    found = swap_tables(comparison, lambda value, interval: _over_interval(value, interval).plain, all_pairs=False)
    return [
        _table(table.title, "\n".join(f"{note}." for note in table.notes), table.heads, table.rows) for table in found
    ]


def _table(title: str, notes: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts, of which names are on the left, with intervals below their values."""
    table = Table(
        title=Text(title),
        caption=Text(notes),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in heads:
        table.add_column(heading, justify="left" if heading in _NAMES else "right", overflow="fold")
    for cells in rows:
        table.add_row(*(Text(_BEFORE_A_BREAK.sub("\n", cell)) for cell in cells))
    return table


def _differs_from_baseline(comparison: Comparison, label: str) -> bool:
    test = comparison.against_baseline(label)
    return test is not None and test.accuracy_differs


def _notes(comparison: Comparison) -> list[str]:
    """Notes that are needed to interpret the numbers."""
    notes = [GUIDED] if comparison.guided else []
    marked = [label for label in comparison.labels if _differs_from_baseline(comparison, label)]
    if marked:
        baselines = sorted({comparison.baseline_of(label) for label in marked})
        whose = baselines[0] if len(baselines) == 1 else f"that of its run's baseline ({', '.join(baselines)})"
        notes.append(f"* accuracy differs from {whose} on the same questions (McNemar, 5 %)")
    for label, row in zip(comparison.labels, comparison.rows, strict=True):
        if row.scores.unjudged:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in row.scores.unjudged_reasons.items())
            notes.append(f"{label}: unjudged ({reasons}); {bounds_note(row.scores)}")
        if row.scores.unjudgeable:
            notes.append(f"{label}: {unjudgeable_note(row.scores)}")
        if row.to_review and row.agreement:
            found = row.agreement.get(JUDGE_AND_CHECK)
            kappa = "" if found is None or found.kappa is None else f" (kappa {found.kappa:.2f})"
            notes.append(f"{label}: {row.to_review} answers to look at{kappa}: {row.evaluation}/review.jsonl")
    if comparison.some_unjudged:
        notes.append(RANKED_BY)
    if len(comparison.alpha_ranges) > 1:
        winners = ", ".join(f"{r.in_words} from alpha {r.start:.2f}" for r in comparison.alpha_ranges)
        notes.append(f"the winner depends on alpha: {winners}")
    return notes


def findings_table(strategy: str, findings: Sequence[Finding]) -> Table:
    """Findings about a strategy's outputs, with remedies."""
    title = strategy if findings else f"{strategy}: nothing stands out"
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # keys and ids must stay whole to be of use
    for finding in findings:
        table.add_row("what", Text(finding.sentence))
        table.add_row("try", Text(finding.remedy), end_section=not finding.examples)
        if finding.examples:
            table.add_row("example", Text("\n".join(finding.examples)), end_section=True)
    return table


def _accuracy(scores: Scores, mark: str) -> Text:
    """The value above its interval and, if outputs are unjudged, above its bounds."""
    shown = _over_interval(scores.accuracy, scores.accuracy_interval, mark)
    if scores.unjudged:
        shown.append(f"\n{scores.accuracy_bounds[0]:.3f} to {scores.accuracy_bounds[1]:.3f}")
    return shown


def _over_interval(value: float, interval: tuple[float, float], mark: str = "") -> Text:
    """The value and, below it, its 95 % interval."""
    if math.isnan(value):
        return Text(UNKNOWN)
    return Text.assemble(f"{value:.3f}{mark}\n", (f"{interval[0]:.2f}-{interval[1]:.2f}", "dim"))


def data_table(report: DataReport) -> Table:
    """Numbers of tokens of each segment of an example; `data_notes` has what else is known of the set."""
    table = Table(title=Text(f"{report.name}: tokens per segment"))
    table.add_column("segment", overflow="fold")
    for heading in ("mean", "min", "median", "p90", "p99", "max"):
        table.add_column(heading, justify="right")
    for length in report.lengths:
        table.add_row(
            Text(length.segment), f"{length.mean:.1f}", *(f"{value:,}" for value in length.quantiles.values())
        )
    return table


def data_notes(report: DataReport) -> list[str]:
    """A line per reason for dropped rows, per source if there are several, and one of lengths."""
    return [
        *(f"{dropped.reason}, for example {dropped.examples[0]}" for dropped in report.dropped),
        *(_source_line(source) for source in report.sources if len(report.sources) > 1),
        _truncation_line(report),
    ]


def segment_table(report: SegmentReport) -> Table:
    """Rows accepted by rule, unsure and failed by reason, and those of which a text is left out."""
    table = Table(title=f"{report.accepted.total():,} of {report.rows:,} rows segmented ({report.coverage:.1%})")
    table.add_column("rows")
    table.add_column("by rule or reason", overflow="fold")
    table.add_column("count", justify="right")
    kinds = {"accepted": "accepted", "unsure": "unsure", "failed": "failed", "removed": "accepted without"}
    for kind, heading in kinds.items():
        for name, count in getattr(report, kind).most_common():
            table.add_row(heading, Text(name), f"{count:,}")
    return table


def balance_table(title: str, rows: Sequence[BalancePreview]) -> Table:
    """The balance of a stage's steps by number of ranks, this sampler first."""
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("ranks", justify="right")
    table.add_column("side", overflow="fold")
    for heading in ("micro-batches", "tokens", "cost", "loss", "density", "waiting"):
        table.add_column(heading, justify="right")
    for before, row in zip((None, *rows), rows, strict=False):
        starts = before is None or before.data_ranks != row.data_ranks
        table.add_row(
            f"{row.data_ranks:,}" if starts else "",
            Text(row.side),
            f"{row.micro_batches:.1f}",
            *(f"{getattr(row.balance, name):.3f}" for name in ("tokens", "cost", "loss_weight")),
            f"{row.balance.density:.0%}",
            f"{row.balance.straggler_loss:.1%}",
        )
    return table


def _source_line(source: SourceCounts) -> str:
    return (
        f"{source.place}: {source.rows:,} rows, {source.examples:,} examples, {source.refused:,} refused, "
        f"{source.not_drawn:,} left out by weight"
    )


def _truncation_line(report: DataReport) -> str:
    shares = ", ".join(f"{share:.1%} over {bound:,}" for bound, share in report.truncation.share_longer_than.items())
    return f"rows by tokens: {shares}"
