"""The table of what answers follow after swapped reasoning, over the seeds of a study."""

from collections.abc import Mapping

from sftkey_dist.evaluation.over_seeds import mean_over_seeds, paired_over_seeds
from sftkey_dist.evaluation.swapped.summary import SwapShare
from sftkey_dist.report.cells import difference_cell, mean_cell
from sftkey_dist.report.comparison import baseline_among
from sftkey_dist.report.evidence import Result, swapped_shares
from sftkey_dist.report.markdown import table
from sftkey_dist.report.numbers import UNKNOWN
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
    heads = ["strategy", *SHARE_NAMES, f"follows - {baseline}", "seeds x n"]
    return [
        f"Swapped reasoning. {READING}; `carries` is the same for the reasoning that the model itself has generated.",
        "",
        *table(heads, [_cells(strategy, of, measured[baseline]) for strategy, of in measured.items()]),
        "",
    ]


def _cells(strategy: str, results: Mapping[int, Result], baseline: Mapping[int, Result]) -> list[str]:
    follows = swapped_shares(results, "follows")
    others = {} if results is baseline else swapped_shares(baseline, "follows")
    against = paired_over_seeds(_values(follows), _values(others))
    return [
        strategy,
        *(_mean(swapped_shares(results, name)) for name in SHARE_NAMES),
        difference_cell(against),
        f"{len(follows)} x {_num_questions(follows)}",
    ]


def _mean(shares: Mapping[int, SwapShare]) -> str:
    if not shares:
        return UNKNOWN
    return mean_cell(mean_over_seeds(list(_values(shares).values()), questions=_num_questions(shares)))


def _values(shares: Mapping[int, SwapShare]) -> dict[int, float]:
    return {seed: share.value for seed, share in shares.items()}


def _num_questions(shares: Mapping[int, SwapShare]) -> int:
    return min(share.n for share in shares.values())
