"""How the checks of answers do: on real outputs, on hard pairs beside other tools, and on references among themselves.

``python -m tests.benchmarks.answers --data FOLDER --peers``; without a folder of data sets, the hard pairs alone.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from tests.benchmarks.answers.outputs import NOT_READ, Disagreement, judge_outputs
from tests.benchmarks.answers.pairs import Checks, Judged, Pair, Tally, hardest_kinds, judge_pairs, read_pairs, tallies
from tests.benchmarks.answers.peers import all_peers
from tests.benchmarks.answers.references import (
    Compared,
    aqua_questions,
    confused_options,
    equal_pairs,
    minerva_references,
    unequal_respellings,
)
from tests.benchmarks.figures import Figure, arguments, console, publish

OURS = "sftkey"
_ENDING_CHARACTERS = 160
_QUICK_STEP = 10
_TABLE_WIDTH = 120


def main() -> None:
    options = arguments(__doc__ or "", _options)
    checks, step = Checks(), _QUICK_STEP if options.quick else 1
    figures: dict[str, Figure] = {}
    if options.data is not None:
        figures |= on_outputs(options.data / "model_outputs", checks)
    figures |= on_pairs(read_pairs()[::step], checks, options.lm_eval_python if options.peers else None, options.misses)
    if options.data is not None:
        figures |= on_references(options.data, checks, step, options.minutes)
    publish("Answers", figures, options.json)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with model_outputs/, minerva_math/ and aqua/")
    parser.add_argument("--peers", action="store_true", help="other tools on the same pairs")
    parser.add_argument(
        "--lm-eval-python", default=sys.executable, metavar="PATH", help="interpreter that has lm-eval[math]"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="for each data set's pairs of references")
    parser.add_argument("--misses", action="store_true", help="every hard pair whose verdict is not the label")


def on_pairs(pairs: Sequence[Pair], checks: Checks, python: str | None, show_misses: bool) -> dict[str, Figure]:
    """Hard pairs: the checks, and beside them the peers where an interpreter for them is given."""
    judged = judge_pairs(pairs, checks)
    rows = {(check, OURS): tally for check, tally in tallies(pairs, judged).items()}
    if python is not None:
        rows |= all_peers(pairs, python, console.print)
    _print_tallies("Hard pairs", {" · ".join(names): rows[names] for names in sorted(rows)})
    _print_kinds(hardest_kinds(pairs, judged))
    _print_misses(pairs, judged, only_certain=not show_misses)
    ours = {check: tally for (check, peer), tally in rows.items() if peer == OURS}
    return {f"hard pairs, {check}: right": Figure(tally.right_share, "") for check, tally in ours.items()} | {
        "hard pairs: wrong and certain": Figure(sum(tally.wrong_and_certain for tally in ours.values()), "", "<= 0")
    }


def on_outputs(folder: Path, checks: Checks) -> dict[str, Figure]:
    """Real outputs."""
    by_reading, disagreements = judge_outputs(folder, checks)
    _print_tallies("Real outputs", {", ".join(names): by_reading[names] for names in sorted(by_reading)})
    for disagreement in disagreements:
        _print_disagreement(disagreement)
    known = {names: by_reading[names] for names in sorted(by_reading) if NOT_READ not in names}
    return {f"{', '.join(names)}: right": Figure(tally.right_share, "") for names, tally in known.items()} | {
        "real outputs: wrong and certain": Figure(sum(tally.wrong_and_certain for tally in known.values()), "")
    }


def on_references(folder: Path, checks: Checks, step: int, limit_minutes: float) -> dict[str, Figure]:
    """Every so many of the references of minerva_math and aqua, among themselves."""
    minerva = minerva_references(folder / "minerva_math" / "test.jsonl")[::step]
    questions = aqua_questions(folder / "aqua" / "test.jsonl")[::step]
    aqua = list(dict.fromkeys(options[right] for _, options, right in questions))
    figures: dict[str, Figure] = {}
    for name, references in (("minerva_math", minerva), ("aqua", aqua)):
        number, equal = equal_pairs(references, checks, limit_minutes)
        _print_compared(f"{name}: different references that compare equal", equal)
        spellings, unequal = unequal_respellings(references, checks)
        _print_compared(f"{name}: respellings that do not compare equal", unequal)
        unexplained = sum(not pair.why for pair in equal)
        figures |= {
            f"{name}: pairs equal": Figure(
                len(equal), "", against=f"{number} of {math.comb(len(references), 2)} pairs"
            ),
            f"{name}: pairs equal, unexplained": Figure(unexplained, ""),
            f"{name}: respellings not equal": Figure(len(unequal), "", "<= 0", against=f"{spellings} respellings"),
        }
    number, confused = confused_options(questions, checks)
    _print_compared("aqua: options taken for others", confused)
    return figures | {"aqua: options confused": Figure(len(confused), "", "<= 0", against=f"{number} options")}


def _print_tallies(title: str, rows: dict[str, Tally]) -> None:
    table = Table(title=title)
    for heading in ("", "pairs", "right", "wrong", "unjudged", "certain", "wrong and certain"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    for name, tally in rows.items():
        shares = f"{tally.right_share:.1%}", str(tally.wrong), str(tally.unjudged)
        certain = f"{tally.certain / tally.pairs:.1%}" if tally.pairs else ""
        table.add_row(name, str(tally.pairs), *shares, certain, str(tally.wrong_and_certain))
    console.print(table, width=_TABLE_WIDTH)


def _print_kinds(kinds: Sequence[tuple[str, int, int]]) -> None:
    for kind, number, pairs in kinds:
        _print_line(f"{kind}: {number} of {pairs} not right")


def _print_misses(pairs: Sequence[Pair], judged: Sequence[Judged], only_certain: bool) -> None:
    for pair, said in zip(pairs, judged, strict=True):
        is_certain_mistake = said.certain and said.word not in (pair.expected, "unjudged")
        if is_certain_mistake or (said.word != pair.expected and not only_certain):
            texts = escape(f"{pair.reference!r} | {pair.answer!r}")
            _print_line(f"{pair.check_name}, {pair.kind}: {texts} -> {said}")


def _print_disagreement(disagreement: Disagreement) -> None:
    output, judged = disagreement.output, disagreement.judged
    ending = escape(repr(output.text.strip()[-_ENDING_CHARACTERS:]))
    known = f"known as {output.expected}" if output.is_read else NOT_READ
    _print_line(
        f"{output.source}, {disagreement.reading}: {judged}; {known};"
        f" reference {escape(output.reference)}; ends {ending}"
    )


def _print_compared(title: str, compared: Sequence[Compared]) -> None:
    _print_line(f"{title}: {len(compared)}")
    for pair in compared:
        texts = escape(f"{pair.reference!r} | {pair.answer!r}")
        _print_line(f"  {texts} {pair.judged} {pair.why}".rstrip())


def _print_line(text: str) -> None:
    console.print(text, soft_wrap=True)


if __name__ == "__main__":
    main()
