"""A comparison as Markdown, for a pull request or a notebook."""

from collections.abc import Sequence

from sftkey_dist.evaluation.statistics import Interval
from sftkey_dist.report.comparison import Comparison


def to_markdown(comparison: Comparison) -> str:
    """Table of all strategies, per test set where there are several, significance, and winners by alpha."""
    parts = [_scores(comparison), _by_data_set(comparison), _tests(comparison), _winners(comparison)]
    return "\n".join(line for part in parts if part for line in [*part, ""])


def with_interval(value: float, interval: Interval) -> str:
    """``0.812 [0.75, 0.86]``."""
    return f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _scores(comparison: Comparison) -> list[str]:
    rows = [
        [
            label,
            str(row.scores.n),
            with_interval(row.scores.accuracy, row.scores.accuracy_interval),
            with_interval(row.scores.format, row.scores.format_interval),
            with_interval(row.scores.score, row.scores.score_interval),
            f"{row.scores.strict_score:.3f}",
            str(row.scores.unjudged),
            f"{row.train_seconds:.0f}",
            f"{row.loss_tokens:,}",
        ]
        for label, row in zip(comparison.labels, comparison.rows, strict=True)
    ]
    heads = ["strategy", "n", "accuracy", "format", "score", "strict score", "unjudged", "train s", "loss tokens"]
    alpha = comparison.alpha
    return [
        *table(heads, rows),
        "",
        f"score = {alpha:g} · accuracy + {1 - alpha:g} · format; strict score: an output that breaks the contract "
        f"scores 0; brackets are 95 % intervals.",
    ]


def _by_data_set(comparison: Comparison) -> list[str]:
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.by_data_set))
    if len(names) < 2:
        return []
    rows = [
        [
            label,
            *(
                f"{row.by_data_set[name].accuracy:.3f} / {row.by_data_set[name].format:.3f}"
                if name in row.by_data_set
                else "-"
                for name in names
            ),
            f"{row.macro_average['accuracy']:.3f} / {row.macro_average['format']:.3f}",
            f"{row.macro_average['score']:.3f}",
        ]
        for label, row in zip(comparison.labels, comparison.rows, strict=True)
    ]
    return table(["accuracy / format", *names, "macro average", "macro score"], rows)


def _tests(comparison: Comparison) -> list[str]:
    if not comparison.tests:
        return []
    rows = [
        [
            f"{test.first} - {test.second}",
            str(test.n),
            with_interval(test.accuracy_difference, test.accuracy_difference_interval),
            f"{test.only_first_correct} / {test.only_second_correct}",
            f"{test.accuracy_p_value:.4f}",
            with_interval(test.score_difference, test.score_difference_interval),
        ]
        for test in comparison.tests
    ]
    heads = ["difference", "questions", "accuracy", "right alone", "McNemar p", "score"]
    return table(heads, rows)


def _winners(comparison: Comparison) -> list[str]:
    reigns = comparison.reigns
    return [
        "Highest score by alpha: "
        + ", ".join(f"{reign.strategy} for {reign.start:.3f} to {reign.end:.3f}" for reign in reigns)
        + "."
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is text, the others are figures."""
    rules = ["---", *(["---:"] * (len(heads) - 1))]
    return [f"| {' | '.join(line)} |" for line in (heads, rules, *rows)]
