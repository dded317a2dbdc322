"""The table of what answers follow after swapped reasoning, over the seeds of a study."""

from collections.abc import Mapping

from sftkey_dist.evaluation.over_seeds import mean_over_seeds, paired_over_seeds
from sftkey_dist.evaluation.swapped.summary import SwapShare
from sftkey_dist.report.comparison import baseline_among
from sftkey_dist.report.markdown import table
from sftkey_dist.report.numbers import UNKNOWN
from sftkey_dist.report.study.evidence import Result, swapped_shares
from sftkey_dist.report.study.seed_cells import difference_cell, mean_cell
from sftkey_dist.report.swapped import READING, SHARE_NAMES


def swapped_over_seeds(results: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """Lines of the table; empty if no run measured it.

    Args:
        results: by strategy and seed.
    """
    measured = {
        strategy: of for strategy, of in results.items() if any(result.swapped_reasoning for result in of.values())
    }
    if not measured:
        return []
    baseline = baseline_among(measured)
    heads = ["strategy", *SHARE_NAMES, f"follows - {baseline}", "follows - its start", "seeds x n"]
    return [
        f"Swapped reasoning. {READING}; `carries` is the same for the reasoning that the model itself has generated. "
        f"The start of a strategy is the one that ends after the same first stage. A share of other answers than "
        f"`seeds x n` says its own number.",
        "",
        *table(heads, [_cells(strategy, measured, baseline) for strategy in measured]),
        "",
    ]


def _cells(strategy: str, measured: Mapping[str, Mapping[int, Result]], baseline: str) -> list[str]:
    results = measured[strategy]
    follows = swapped_shares(results, "follows")
    num_answers = _num_answers(follows)
    return [
        strategy,
        *(_mean(swapped_shares(results, name), num_answers) for name in SHARE_NAMES),
        _difference(follows, measured[baseline] if strategy != baseline else None),
        _difference(follows, measured.get(_start(strategy, measured))),
        num_answers,
    ]


def _start(strategy: str, measured: Mapping[str, Mapping[int, Result]]) -> str:
    """The strategy of one stage with which a strategy of several shares the first one; "" if there is none."""
    stages = {name: next(iter(results.values())).stages for name, results in measured.items()}
    if len(stages[strategy]) == 1:
        return ""
    trained_by = {name: of[0].shared_with or name for name, of in stages.items()}
    same = [name for name, of in stages.items() if len(of) == 1 and trained_by[name] == trained_by[strategy]]
    return next(iter(same), "")


def _difference(follows: Mapping[int, SwapShare], others: Mapping[int, Result] | None) -> str:
    if others is None:
        return ""
    return difference_cell(paired_over_seeds(_values(follows), _values(swapped_shares(others, "follows"))))


def _mean(shares: Mapping[int, SwapShare], num_answers: str) -> str:
    """The mean over seeds and, unless it is ``num_answers``, the number of answers."""
    if not shares:
        return UNKNOWN
    fewest = min(share.n for share in shares.values())
    mean = mean_cell(mean_over_seeds(list(_values(shares).values()), questions=fewest))
    return mean if _num_answers(shares) == num_answers else f"{mean} of {_num_answers(shares)}"


def _values(shares: Mapping[int, SwapShare]) -> dict[int, float]:
    return {seed: share.value for seed, share in shares.items()}


def _num_answers(shares: Mapping[int, SwapShare]) -> str:
    """``3 x 200``, or ``3 x 57 to 64`` if seeds differ."""
    if not shares:
        return UNKNOWN
    fewest, most = (of(share.n for share in shares.values()) for of in (min, max))
    return f"{len(shares)} x {fewest:,}" + (f" to {most:,}" if most > fewest else "")
