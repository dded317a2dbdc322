"""How many seeds and questions a comparison needs, as a table for the terminal and in words."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from sftkey_dist.evaluation.power import POWER
from sftkey_dist.report.numbers import UNKNOWN

_POWER = f"{100 * POWER:.0f} % power"


@dataclass(frozen=True)
class PairPower:
    """What a pair of strategies tells about the size of a comparison. Differences are of accuracy, in [-1, 1].

    Attributes:
        first: name of the strategy from whose accuracy the other's is subtracted.
        second: name of the other strategy.
        num_seeds: number of seeds.
        num_questions: number of questions that all seeds share.
        left_out: number of questions that some seed lacks, or that is unjudged there.
        difference: first minus second.
        smallest: the smallest difference that a comparison of this size sees.
        needed: number of questions by number of seeds; None where the difference is not reachable with so many seeds.
            If only one seed is known, there is no plan for several.
        least_seeds: number of seeds below which the difference is not reachable; None if only one seed is known.
    """

    first: str
    second: str
    num_seeds: int
    num_questions: int
    left_out: int
    difference: float
    smallest: float
    needed: dict[int, int | None]
    least_seeds: int | None


@dataclass(frozen=True)
class PowerPlan:
    """How many seeds and questions it takes to see a difference.

    Attributes:
        difference: the difference in accuracy that is to be seen.
        pairs: the pairs from which the plan is made; at least one.
        unused: a line for every pair that cannot be used, with the reason.
    """

    difference: float
    pairs: tuple[PairPower, ...]
    unused: tuple[str, ...]


def power_table(plan: PowerPlan) -> Table:
    """One line per pair: what its size sees, and the questions that it needs by number of seeds."""
    counts = _seed_counts(plan)
    table = Table(
        title=Text(f"questions that it takes to see {plan.difference:g} in accuracy, by number of seeds"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("first\n- second", overflow="fold")
    for heading in ("seeds\nx n", "now", "sees", *map(str, counts)):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in plan.pairs:
        table.add_row(
            Text(f"{pair.first}\n- {pair.second}"),
            f"{pair.num_seeds}\nx {pair.num_questions:,}",
            f"{pair.difference:+.3f}",
            f"{pair.smallest:.3f}",
            *(_needed(pair, number) for number in counts),
        )
    return table


def conclusion(plan: PowerPlan) -> str:
    """What it takes to see the difference in every pair that the plan is made from."""
    whom = "the comparison sees" if len(plan.pairs) == 1 else "each of these comparisons sees"
    sees = f"{whom} a difference of {plan.difference:g} in accuracy with {_POWER}"
    if all(pair.num_seeds == 1 for pair in plan.pairs):
        most = max(pair.needed[1] or 0 for pair in plan.pairs)
        return (
            f"With {most:,} questions {sees}, but only between models of one seed. One seed does not tell how much the "
            f"difference varies between seeds: make a study of several seeds to plan for strategies."
        )
    sizes = _sizes(plan)
    if sizes:
        (seeds, questions), (other_seeds, other_questions) = sizes[0], sizes[-1]
        instead = f", or with {other_seeds} seeds and {other_questions:,}," if len(sizes) > 1 else ""
        return f"With {seeds} seeds and {questions:,} questions{instead} {sees}."
    return (
        f"With {_seed_counts(plan)[-1]} seeds it is not reachable that {sees}, however many questions there are: the "
        f"differences vary so much between seeds that it takes at least {_least_seeds(plan):,} seeds."
    )


def _sizes(plan: PowerPlan) -> list[tuple[int, int]]:
    """Numbers of several seeds, and of questions with which every pair of several seeds sees the difference."""
    of_each = [pair.needed for pair in plan.pairs if pair.num_seeds > 1]
    found = ((number, [needed[number] for needed in of_each]) for number in _seed_counts(plan) if number > 1)
    return [(number, max(known)) for number, needed in found if len(known := _known(needed)) == len(needed)]


def _least_seeds(plan: PowerPlan) -> int:
    return max(pair.least_seeds for pair in plan.pairs if pair.least_seeds is not None)


def _known(needed: Iterable[int | None]) -> list[int]:
    return [questions for questions in needed if questions is not None]


def power_notes(plan: PowerPlan) -> list[str]:
    """Lines that are needed to read the table, and what is not in it."""
    notes = [f"sees: the smallest difference that so many seeds and questions see with {_POWER} at the 5 % level"]
    if len(_seed_counts(plan)) > 1:
        notes.append("1: a difference between two trained models, which says nothing about other seeds")
    unreachable = [n for n in _seed_counts(plan) if any(pair.needed.get(n, 0) is None for pair in plan.pairs)]
    if unreachable:
        notes.append(f"no: not reachable with {_listed(unreachable)} seeds, however many questions there are")
    if len(_seed_counts(plan)) > 1 and any(pair.num_seeds == 1 for pair in plan.pairs):
        notes.append(f"{UNKNOWN}: one seed does not tell how much the difference varies between seeds")
    notes += [
        f"{pair.first} - {pair.second}: {pair.left_out:,} questions left out, which are missing or unjudged somewhere"
        for pair in plan.pairs
        if pair.left_out
    ]
    return [*notes, *(f"not used: {reason}" for reason in plan.unused)]


def _listed(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def _seed_counts(plan: PowerPlan) -> list[int]:
    return sorted({number for pair in plan.pairs for number in pair.needed})


def _needed(pair: PairPower, num_seeds: int) -> str:
    questions = pair.needed.get(num_seeds, 0)
    return "no" if questions is None else f"{questions:,}" if questions else UNKNOWN
