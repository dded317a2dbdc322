"""The paper's statements about its models, and whether the studies here agree with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sftkey_dist.report.markdown import Markdown, bold, table
from sftkey_dist.report.study.evidence import Evidence, Result
from sftkey_dist.report.study.seed_cells import crossed, crossed_cell, difference_cell, mean_cell, over_seeds, paired

_AGREES, _DIFFERS, _NOISY = "agrees", "disagrees", "too noisy to tell"
_VERDICTS = {1: _AGREES, -1: _DIFFERS, 0: _NOISY}


@dataclass(frozen=True)
class _Claim:
    """A statement that the paper's numbers support, and how to test it with a variant's results."""

    text: str
    needs: tuple[str, ...]
    judge: Callable[[dict[str, dict[int, Result]]], tuple[str, str]]


def claims_section(studies: Sequence[Evidence]) -> list[str]:
    """The paper's statements about its models, with the results of these studies for other models."""
    heads = ["in the paper", "here", "", ""]
    rows = []
    for claim in _CLAIMS:
        for study in studies:
            for variant, results in study.results.items():
                if set(claim.needs) <= results.keys() and not study.is_guided(variant):
                    verdict, figures = claim.judge(results)
                    rows.append([claim.text, f"{study.name} {variant}", bold(verdict), figures])
    agree, differ, noisy = (sum(row[2] == bold(verdict) for row in rows) for verdict in (_AGREES, _DIFFERS, _NOISY))
    return [
        f"Statements that the paper's table supports, for other models and data than here. Agrees: {agree}, "
        f"disagrees: {differ}, too noisy to tell: {noisy}. Whether accuracy differs is tested over seeds and "
        f"questions where the runs recorded which answers were right (then no seeds are counted), everything else over "
        f"seeds alone. No p-value is corrected for the number of rows.",
        "",
        *table(heads, rows),
        "",
    ]


def _higher_score(results: dict[str, dict[int, Result]]) -> tuple[str, str]:
    return _judged_by_seeds(results["sftkey-tag"], results["sft"], "score")


def _more_often_right(results: dict[str, dict[int, Result]]) -> tuple[str, str]:
    first, second = results["sftkey-tag"], results["sft-tag"]
    over_both = crossed(first, second)
    if over_both is None:
        return _judged_by_seeds(first, second, "accuracy")
    return _VERDICTS[over_both.sign], Markdown(f"accuracy {crossed_cell(over_both)}")


def _judged_by_seeds(first: dict[int, Result], second: dict[int, Result], name: str) -> tuple[str, str]:
    found = paired(first, second, name)
    return _VERDICTS[0 if found is None else found.sign], Markdown(f"{name} {difference_cell(found)}")


def _keeps_format(results: dict[str, dict[int, Result]]) -> tuple[str, str]:
    kept = over_seeds(results["sftkey-tag"], "format")
    return _VERDICTS[kept.side_of(0.9)], f"format {mean_cell(kept)}"


def _loses_format(results: dict[str, dict[int, Result]]) -> tuple[str, str]:
    lost = over_seeds(results["key-tag"], "format")
    return _VERDICTS[-lost.side_of(0.76)], f"format {mean_cell(lost)}"


_CLAIMS = (
    _Claim(
        "SFTKey-Tag has a higher score than SFT (five of five models)",
        ("sftkey-tag", "sft"),
        _higher_score,
    ),
    _Claim(
        "SFTKey-Tag is more often right than SFT-Tag, from which it starts",
        ("sftkey-tag", "sft-tag"),
        _more_often_right,
    ),
    _Claim(
        "SFTKey-Tag keeps the format: 0.91 to 0.996 where known",
        ("sftkey-tag",),
        _keeps_format,
    ),
    _Claim(
        "Key-Tag alone does not learn the format: 0 to 0.75",
        ("key-tag",),
        _loses_format,
    ),
)
