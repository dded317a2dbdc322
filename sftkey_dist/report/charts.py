"""The figures of a comparison, each with a caption and a table of its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.contract import END_OF_TURN, PROMPT
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.numbers import number
from sftkey_dist.report.plots import (
    Curve,
    key_nll_curve,
    plot_curves,
    plot_histograms,
    plot_key_nll,
    plot_plane,
    plot_score_by_alpha,
    segment_nll_curve,
    throughput_curve,
    waiting_curve,
)
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord
from sftkey_dist.run_dir.artifacts.training import METRICS, OBSERVATIONS, GuardScores

_ENDS_OF_STEPS = ("first tenth of the steps", "last tenth")
_GUARD_MEASURES: dict[str, Callable[[GuardScores], float]] = {
    "accuracy": lambda scores: scores.accuracy,
    "format": lambda scores: scores.format,
    "score": lambda scores: scores.score,
}


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        file: the SVG file.
        title: title above the figure.
        caption: what to look for.
        heads: column headings of the table.
        rows: rows of the table, for readers who cannot see the figure.
        is_about_cost: whether it shows how fast the training was, which comes last.
    """

    file: Path
    title: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_about_cost: bool = False


def draw_charts(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    """Draw all figures for which there is data, the most important first."""
    draw: Sequence[Callable[[Comparison, Path, str], list[Chart]]] = (
        _plane,
        _score_by_alpha,
        _key_nll,
        _segment_nll,
        _guard,
        _output_lengths,
        _throughput,
        _waiting,
    )
    return [chart for make in draw for chart in make(comparison, folder, stem)]


def _key_nll(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    curves = _by_label(comparison, lambda row: key_nll_curve(row.stage_dirs(), row.key_segments))
    return [
        Chart(
            plot_key_nll(curves, folder / f"{stem}_key_nll.svg"),
            "Loss of the answer",
            "nll of key tokens by optimizer step, stages joined, whether or not a stage trains them: the paper's loss "
            "figure. Logarithmic; faint lines are single steps.",
            ("strategy", *_ENDS_OF_STEPS),
            _ends(curves),
        )
    ]


def _segment_nll(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    """The loss of the other segments, whose rise in stage 2 is drift."""
    charts = []
    names = dict.fromkeys(
        name
        for row in comparison.rows
        for directory in row.stage_dirs()
        for record in METRICS.read(directory.metrics)[:1]
        for name in record.segments
    )
    keys = {name for row in comparison.rows for name in row.key_segments}
    others = [name for name in names if name not in keys and "." not in name]
    # A prompt is measured only where it is trained.
    for name in [name for name in others if name not in (PROMPT, END_OF_TURN)]:
        curves = _by_label(comparison, lambda row, name=name: segment_nll_curve(row.stage_dirs(), (name,)))  # type: ignore[misc]
        charts.append(
            Chart(
                plot_key_nll(curves, folder / f"{stem}_segment_{name}_nll.svg", f"nll of {name} tokens [nats/token]"),
                f"Loss of {name}",
                f"A last stage that does not train {name} should not make it worse: a rise there is drift.",
                ("strategy", *_ENDS_OF_STEPS),
                _ends(curves),
            )
        )
    return charts


def _plane(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    return [
        Chart(
            plot_plane(comparison.measures, comparison.plane, folder / f"{stem}_plane.svg"),
            "Accuracy and format",
            "Each strategy with its 95 % intervals. The best corner, right answers in the right structure, is at the "
            "upper right. Unjudged outputs count as wrong; the bar ends where they would all be right.",
            ("strategy", "accuracy", "format"),
            tuple((label, number(a), number(f)) for label, (a, f) in comparison.measures.items()),
        )
    ]


def _score_by_alpha(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    return [
        Chart(
            plot_score_by_alpha(comparison.measures, comparison.alpha, folder / f"{stem}_alpha.svg"),
            "Score by alpha",
            f"alpha is the weight of accuracy; the dotted line is this comparison's, {comparison.alpha:g}. Where lines "
            f"cross, the winner changes.",
            ("highest score", "from alpha", "to alpha"),
            tuple((each.in_words, f"{each.start:.3f}", f"{each.end:.3f}") for each in comparison.alpha_ranges),
        )
    ]


def _output_lengths(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    lengths = {label: [r.num_tokens for r in records] for label, records in comparison.records.items()}
    shares = {
        label: [sum(map(len, _marked(r))) / max(1, len(r.output)) for r in records]
        for label, records in comparison.records.items()
    }
    return [
        Chart(
            plot_histograms(lengths, "tokens of an output", folder / f"{stem}_lengths.svg"),
            "Length of outputs",
            "A peak at the right end shows outputs that were cut off.",
            ("strategy", "median tokens", "longest"),
            tuple((label, f"{sorted(of)[len(of) // 2]:,}", f"{max(of):,}") for label, of in lengths.items()),
        ),
        Chart(
            plot_histograms(shares, "answer's share of an output's characters", folder / f"{stem}_answer_share.svg"),
            "Share of the answer",
            "Share of each output that is the answer.",
            ("strategy", "median share"),
            tuple((label, f"{sorted(of)[len(of) // 2]:.3f}") for label, of in shares.items()),
        ),
    ]


def _guard(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    curves = {
        f"{label} {measure}": curve
        for label, row in zip(comparison.labels, comparison.rows, strict=True)
        for measure, value in _GUARD_MEASURES.items()
        if len((curve := _guard_curve(row, value))[0])
    }
    if not curves:
        return []
    return [
        Chart(
            plot_curves(curves, "optimizer step of the last stage", "held-out measure", folder / f"{stem}_guard.svg"),
            "Guard during the last stage",
            "Scores of the guard on held-out examples during the last stage.",
            ("measure", "first tenth", "last tenth"),
            _ends(curves),
        )
    ]


def _throughput(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    speed = _by_label(comparison, lambda row: throughput_curve(row.stage_dirs()))
    return [
        Chart(
            plot_curves(speed, "optimizer step, stages joined", "tokens/s", folder / f"{stem}_throughput.svg"),
            "Throughput",
            "Tokens per second of all ranks together, without padding.",
            ("strategy", *_ENDS_OF_STEPS),
            _ends(speed, digits=0),
            is_about_cost=True,
        )
    ]


def _waiting(comparison: Comparison, folder: Path, stem: str) -> list[Chart]:
    waiting = _by_label(comparison, lambda row: waiting_curve(row.stage_dirs()))
    if not any(curve.values.any() for curve in waiting.values()):
        return []  # a single rank waits for none
    return [
        Chart(
            plot_curves(waiting, "optimizer step, stages joined", "share of a step", folder / f"{stem}_waiting.svg"),
            "Waiting for the slowest rank",
            "Share of each step in which ranks wait for the slowest one, by the planned cost; 0 is perfect balance.",
            ("strategy", *_ENDS_OF_STEPS),
            _ends(waiting),
            is_about_cost=True,
        )
    ]


def _marked(record: EvaluationRecord) -> list[str]:
    """The answers that were found at their mark."""
    return [text for name, text in record.answer.items() if record.answer_source[name] != "whole"]


def _by_label(comparison: Comparison, curve: Callable[[ComparisonRow], Curve]) -> dict[str, Curve]:
    curves = {label: curve(row) for label, row in zip(comparison.labels, comparison.rows, strict=True)}
    return {label: points for label, points in curves.items() if len(points[0])}


def _guard_curve(row: ComparisonRow, value: Callable[[GuardScores], float]) -> Curve:
    observations = OBSERVATIONS.read(row.stage_dirs()[-1].validation)
    scored = [(found.step, value(found.guard)) for found in observations if found.guard is not None]
    return Curve.of([step for step, _ in scored], [of_step for _, of_step in scored])


def _ends(curves: dict[str, Curve], digits: int = 3) -> tuple[tuple[str, ...], ...]:
    """Means over the first and the last tenth of each curve."""
    rows = []
    for label, (_, values) in curves.items():
        tenth = max(1, len(values) // 10)
        rows.append((label, number(values[:tenth].mean(), digits), number(values[-tenth:].mean(), digits)))
    return tuple(rows)
