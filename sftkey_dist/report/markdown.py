"""A comparison as Markdown, for a pull request or a notebook."""

import re
from collections.abc import Mapping, Sequence

from sftkey_dist.evaluation.power import seen_over_questions
from sftkey_dist.report.cautions import cautions
from sftkey_dist.report.commonest import CommonestAnswer
from sftkey_dist.report.comparison import Comparison
from sftkey_dist.report.confusion import CONFUSION, confusions
from sftkey_dist.report.forgetting import FORGETTING, FORGETTING_HEADS, Forgetting, forgotten_in_words
from sftkey_dist.report.headline import headline
from sftkey_dist.report.numbers import (
    GUIDED,
    RANKED_BY,
    UNKNOWN,
    bounds_note,
    number,
    p_value,
    unjudgeable_note,
    with_interval,
)
from sftkey_dist.report.swapped import swap_tables
from sftkey_dist.report.underpowered import SMALLEST_SEEN, UNCORRECTED, too_few_questions
from sftkey_dist.visible import on_one_line

_MARKUP = re.compile(r"[\\`*|$~<]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|!(?=\[)|\[(?=\^)|^[#>]|^[+-](?=\s)")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


class Markdown(str):
    """A text that is already Markdown. Every other text is escaped."""


def to_markdown(comparison: Comparison) -> str:
    """The result in words, the table of all strategies with cautions about them, one by test set if there are several,
    significance, winners by alpha, what was forgotten and what answers follow if that was measured, and which answers
    were given if they are a few labels."""
    result = headline(comparison)
    in_words = [escaped(result)] if result else []
    if commonest := CommonestAnswer.of(comparison):
        in_words += [*([""] if in_words else []), escaped(commonest.in_words())]
    careful = [f"- {escaped(caution)}" for caution in cautions(comparison)]
    guided = [f"{GUIDED[0].upper()}{GUIDED[1:]}."] if comparison.guided else []
    parts = [in_words, guided, _scores(comparison), careful, _by_data_set(comparison), _tests(comparison)]
    parts += [
        _winners(comparison),
        forgetting_lines(comparison.forgetting),
        _swapped(comparison),
        _confusions(comparison),
    ]
    return "\n".join(line for part in parts if part for line in [*part, ""])


def _scores(comparison: Comparison) -> list[str]:
    rows = [
        [
            label,
            str(row.scores.n),
            with_interval(row.scores.accuracy, row.scores.accuracy_interval),
            with_interval(row.scores.format, row.scores.format_interval),
            with_interval(row.scores.score, row.scores.score_interval),
            number(row.scores.strict_score),
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
        *_unjudged(comparison),
    ]


def _unjudged(comparison: Comparison) -> list[str]:
    """Notes about accuracies for which judges or checks failed."""
    rows = list(zip(map(escaped, comparison.labels), (row.scores for row in comparison.rows), strict=True))
    notes = [f"- {label}: {bounds_note(scores)}" for label, scores in rows if scores.unjudged]
    notes += [f"- {label}: {escaped(unjudgeable_note(scores))}" for label, scores in rows if scores.unjudgeable]
    ranked = [f"- {RANKED_BY}"] if comparison.some_unjudged else []
    return ["", *notes, *ranked] if notes else []


def _by_data_set(comparison: Comparison) -> list[str]:
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.by_data_set))
    if len(names) < 2:
        return []
    rows = [
        [
            label,
            *(
                f"{number(row.by_data_set[name].accuracy)} / {number(row.by_data_set[name].format)}"
                if name in row.by_data_set
                else UNKNOWN
                for name in names
            ),
            f"{number(row.macro_average.accuracy)} / {number(row.macro_average.format)}",
            number(row.macro_average.score),
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
            "no question differs" if test.is_degenerate else p_value(test.accuracy_p_value),
            number(seen_over_questions(test)),
            with_interval(test.score_difference, test.score_difference_interval),
        ]
        for test in comparison.tests
    ]
    heads = ["difference", "questions", "accuracy", "right alone", "McNemar p", "smallest seen", "score"]
    warning = too_few_questions(comparison.tests)
    return [
        *table(heads, rows),
        "",
        f"smallest seen: {SMALLEST_SEEN}. {UNCORRECTED}",
        *(["", escaped(warning)] if warning else []),
    ]


def _winners(comparison: Comparison) -> list[str]:
    ranges = comparison.alpha_ranges
    if not comparison.shares_questions:
        return ["The strategies answered other questions, so that they are not ranked."]
    if not ranges:
        return ["No strategy has a score: nothing was judged."]
    return [
        "Highest score by alpha: "
        + ", ".join(f"{escaped(each.in_words)} for {each.start:.3f} to {each.end:.3f}" for each in ranges)
        + "."
    ]


def forgetting_lines(found: Mapping[str, Forgetting]) -> list[str]:
    """The table of what was forgotten, by label, with its result in words; empty if nothing was measured."""
    rows = [cells for label, of in found.items() for cells in of.cells(label)]
    if not rows:
        return []
    result = forgotten_in_words(found)
    return [*table(FORGETTING_HEADS, rows), "", f"{FORGETTING}.", *(["", escaped(result)] if result else [])]


def _swapped(comparison: Comparison) -> list[str]:
    """What answers follow after the reasoning of another question; empty if it was not measured."""
    lines = []
    for found in swap_tables(comparison):
        lines += [*table(found.heads, found.rows), "", *(f"- {escaped(note)}." for note in found.notes), ""]
    return lines[:-1]


def _confusions(comparison: Comparison) -> list[str]:
    lines = []
    for found in confusions(comparison):
        rows = [[name, *map(str, counts), str(sum(counts))] for name, counts in found.rows]
        lines += [*table([f"{found.strategy}: {found.segment}", *found.heads, "n"], rows), ""]
    return [*lines, f"Given answers: {CONFUSION}."] if lines else []


def bold(text: str) -> Markdown:
    """Bold Markdown of a plain text."""
    return Markdown(f"**{escaped(text)}**")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose first column is text and whose other columns are numbers.

    Cells are escaped unless they are already `Markdown`.
    """
    rules = map(Markdown, ["---", *(["---:"] * (len(heads) - 1))])
    return [f"| {' | '.join(map(escaped, line))} |" for line in (heads, [*rules], *rows)]


def escaped(text: str) -> str:
    """Escape untrusted text for a line or a table cell, so that it is shown literally and on one line.

    Underscores that cannot start an emphasis and brackets that cannot form a link are not escaped.
    """
    return text if isinstance(text, Markdown) else _MARKUP.sub(_escape, on_one_line(text))


def _escape(match: re.Match[str]) -> str:
    return _ENTITIES.get(match.group(), f"\\{match.group()}")
