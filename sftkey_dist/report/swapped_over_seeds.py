"""The table of what answers follow after swapped reasoning, over the seeds of a study."""

from collections.abc import Mapping

from sftkey_dist.evaluation.over_seeds import mean_over_seeds, paired_over_seeds
from sftkey_dist.evaluation.swapped.summary import SwapShare
from sftkey_dist.report.comparison import baseline_among
from sftkey_dist.report.evidence import Result, swapped_shares
from sftkey_dist.report.markdown import table
from sftkey_dist.report.numbers import UNKNOWN
from sftkey_dist.report.seed_cells import difference_cell, mean_cell
from sftkey_dist.report.swapped import READING, SHARE_NAMES


def swapped_over_seeds(results: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """Lines of the table; empty if no run measured it.

    Args:
        results: by strategy and seed.
    """
    measured = {strategy: of for strategy, of in results.items() if swapped_shares(of, "follows")}
    if not measured:
        return []
    baseline = baseline_among(measured)
    heads = ["strategy", *SHARE_NAMES, f"follows - {baseline}", "follows - its start", "seeds x n"]
    return [
        f"Swapped reasoning. {READING}; `carries` is the same for the reasoning that the model itself has generated. "
        f"The start of a strategy is the one that its first stage is shared with.",
        "",
        *table(heads, [_cells(strategy, measured, baseline) for strategy in measured]),
        "",
    ]


def _cells(strategy: str, measured: Mapping[str, Mapping[int, Result]], baseline: str) -> list[str]:
    results = measured[strategy]
    follows = swapped_shares(results, "follows")
    return [
        strategy,
        *(_mean(swapped_shares(results, name)) for name in SHARE_NAMES),
        _difference(follows, measured[baseline] if strategy != baseline else None),
        _difference(follows, measured.get(_start(results))),
        f"{len(follows)} x {_num_questions(follows)}",
    ]


def _start(results: Mapping[int, Result]) -> str:
    """The strategy with which a strategy of several stages shares the first one; "" if there is none."""
    first, *further = next(iter(results.values())).stages
    return (further and first.shared_with) or ""


def _difference(follows: Mapping[int, SwapShare], others: Mapping[int, Result] | None) -> str:
    if others is None:
        return ""
    return difference_cell(paired_over_seeds(_values(follows), _values(swapped_shares(others, "follows"))))


def _mean(shares: Mapping[int, SwapShare]) -> str:
    if not shares:
        return UNKNOWN
    return mean_cell(mean_over_seeds(list(_values(shares).values()), questions=_num_questions(shares)))


def _values(shares: Mapping[int, SwapShare]) -> dict[int, float]:
    return {seed: share.value for seed, share in shares.items()}


def _num_questions(shares: Mapping[int, SwapShare]) -> int:
    return min(share.n for share in shares.values())
