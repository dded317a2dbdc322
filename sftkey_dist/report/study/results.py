"""The results page of studies: tables over seeds, contrasts, costs, and agreement with the paper's statements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from sftkey_dist.evaluation.agreement import JUDGE_AND_CHECK
from sftkey_dist.evaluation.over_seeds import PairedMean, mean_over_seeds
from sftkey_dist.report.comparison import baseline_among
from sftkey_dist.report.markdown import escaped, table
from sftkey_dist.report.published import published_averages
from sftkey_dist.report.study.all_pairs import all_pairs
from sftkey_dist.report.study.claims import claims_section
from sftkey_dist.report.study.curves import Curves, curves_section
from sftkey_dist.report.study.evidence import Evidence, Result, capability_differences
from sftkey_dist.report.study.kept_starts import kept_starts
from sftkey_dist.report.study.losses_over_seeds import Losses, losses_section
from sftkey_dist.report.study.seed_cells import crossed, crossed_cell, difference_cell, mean_cell, over_seeds, paired
from sftkey_dist.report.study.swapped_over_seeds import swapped_over_seeds
from sftkey_dist.report.underpowered import SMALLEST_SEEN, seen_by_seeds, too_few_seeds

_HOW_TO_READ = (
    "- Brackets are 95 % intervals over seeds, which take the questions as given.",
    "- The interval of a share is Wilson's with the effective number of trials, so that it stays in [0, 1]; where all "
    "seeds have the same share, it is one over questions.",
    "- The interval of a difference is Student's for the differences paired by seed; there is none where these are all "
    "equal. It is bold where it excludes 0. *Over seeds and questions*, both have random effects, no interval is "
    "narrower than over the seeds alone, and the mean may differ in the last digit.",
    "- `2 up, 3 down`: higher in two seeds and lower in three.",
    "- P-values are not corrected for the number of comparisons.",
    f"- *Smallest seen*: {SMALLEST_SEEN}, over other seeds and the same questions.",
)


@dataclass(frozen=True)
class StudyFigures:
    """A study's figures, relative to the page.

    Attributes:
        scores: by strategy and seed.
        curves: what each of them shows, and the figure if there is a point.
        losses: of each segment in the course of training, and the figure if any run recorded them.
    """

    scores: Path
    curves: tuple[tuple[Curves, Path | None], ...]
    losses: tuple[Losses, Path | None]

    @property
    def files(self) -> list[Path]:
        """All figures."""
        drawn = [figure for _, figure in (self.losses, *self.curves)]
        return [self.scores, *(figure for figure in drawn if figure is not None)]


def results_page(
    studies: Sequence[Evidence], opening: Sequence[str], figures: Sequence[StudyFigures], command: str
) -> str:
    """The page as Markdown.

    Args:
        studies: the studies, in order.
        opening: lines of what a reader should know first.
        figures: of each study.
        command: the command that generates the page.

    Raises:
        DataError: a contrast names a strategy that does not exist.
    """
    lines = [
        "# Results",
        "",
        *opening,
        f"Made by `{command}` from the `comparison.json` of every run; no number here is typed by hand. How to read "
        "the tables, unless a table's own note says otherwise:",
        "",
        *_HOW_TO_READ,
        "",
    ]
    for study, of_study in zip(studies, figures, strict=True):
        lines += _study(study, of_study)
    lines += ["## Beside the paper", "", *claims_section(studies), *published_averages()]
    return "\n".join(lines).rstrip() + "\n"


def _kappa_cell(kappas: Sequence[float]) -> str:
    """The mean of Cohen's kappa, which lies in [-1, 1]."""
    if not kappas:
        return "undefined"
    mean = mean_over_seeds(kappas, is_share=False)
    low, high = np.clip(mean.interval, -1.0, 1.0).tolist()  # nan stays: there is no interval
    return mean_cell(replace(mean, interval=(low, high)))


def _study(study: Evidence, figures: StudyFigures) -> list[str]:
    facts = study.facts
    seeds = ", ".join(map(str, facts.seeds))
    where = "; ".join(escaped(f"{name} {value}") for name, value in study.environment.items())
    lines = [f"## {escaped(facts.title)}", "", *([facts.about.strip(), ""] if facts.about else [])]
    lines += [f"`{facts.command}`; seeds {seeds}. {where}.", ""]
    if study.missing:
        lines += [f"**Not done yet:** {', '.join(study.missing)}.", ""]
    lines += [f"![scores by strategy and seed]({figures.scores.as_posix()})", ""]
    lines += losses_section(*figures.losses)
    lines += [line for curves, figure in figures.curves for line in curves_section(curves, figure)]
    for variant, of_variant in facts.variants.items():
        if study.results[variant]:
            heading = escaped(variant) + study.note_on(variant)
            lines += [f"### {heading}", "", *([of_variant.about, ""] if of_variant.about else [])]
            lines += [*_scores(study.results[variant]), "", *all_pairs(study.results[variant])]
            lines += kept_starts(study.results[variant])
            lines += _capabilities(study.results[variant])
            lines += swapped_over_seeds(study.results[variant])
    return [*lines, *_contrasts(study), *_judges(study), *_costs(study)]


def _scores(results: dict[str, dict[int, Result]]) -> list[str]:
    baseline = baseline_among(results)
    rows, tests = [], {}
    for strategy, by_seed in results.items():
        against = None if strategy == baseline else paired(by_seed, results[baseline], "accuracy")
        tests[strategy] = against
        rows.append(
            [
                strategy,
                *(mean_cell(over_seeds(by_seed, name)) for name in ("accuracy", "format", "score")),
                difference_cell(against),
                seen_by_seeds(against),
                f"{mean_over_seeds([_loss_tokens(result) for result in by_seed.values()]).value:,.0f}",
                f"{mean_over_seeds([_seconds(result) for result in by_seed.values()]).value:.0f}",
                f"{len(by_seed)} x {next(iter(by_seed.values())).n}",
            ]
        )
    heads = ["strategy", "accuracy", "format", "score", f"accuracy - {baseline}", "smallest seen"]
    return [*table([*heads, "loss tokens", "train s", "seeds x n"], rows), *_warned(tests)]


def _capabilities(results: dict[str, dict[int, Result]]) -> list[str]:
    """What the strategies score in other tasks beside their base models; empty if no run measures capabilities."""
    rows = [
        [strategy, task, mean_cell(mean_over_seeds(list(by_seed.values()), is_share=False)), str(len(by_seed))]
        for strategy, of_seeds in results.items()
        for task, by_seed in capability_differences(of_seeds).items()
    ]
    return [*table(["strategy", "task", "trained - base model", "seeds"], rows), ""] if rows else []


def _contrasts(study: Evidence) -> list[str]:
    rows, tests = [], {}
    for contrast, first, second in study.known_contrasts():
        found = [paired(first, second, name) for name in ("accuracy", "format", "score")]
        tests[f"{contrast.first} - {contrast.second}"] = found[0]
        over_both = crossed(first, second)
        accuracy, *others = map(difference_cell, found)
        rows.append(
            [
                *(contrast.question, contrast.first, contrast.second, accuracy, seen_by_seeds(found[0])),
                "" if over_both is None else crossed_cell(over_both),
                *others,
            ]
        )
    if not rows:
        return []
    heads = [
        "question",
        "first",
        "second",
        "accuracy, first - second",
        "smallest seen",
        "accuracy, over seeds and questions",
    ]
    return ["### Contrasts, paired by seed", "", *table([*heads, "format", "score"], rows), *_warned(tests), ""]


def contrasts_in_words(study: Evidence) -> list[str]:
    """A line of plain text for every contrast whose sides are known, over seeds and questions where that is known."""
    lines = []
    for contrast, first, second in study.known_contrasts():
        over_both = crossed(first, second)
        found = difference_cell(paired(first, second, "accuracy")) if over_both is None else crossed_cell(over_both)
        difference = found.replace("**", "") or "no seed in common"
        lines.append(f"{contrast.question} {contrast.first} - {contrast.second}: accuracy {difference}")
    return lines


def _warned(tests: Mapping[str, PairedMean | None]) -> list[str]:
    warning = too_few_seeds(tests)
    return ["", escaped(warning)] if warning else []


def _judges(study: Evidence) -> list[str]:
    rows = []
    for variant, results in study.results.items():
        for strategy, by_seed in results.items():
            found = [agreement for r in by_seed.values() if (agreement := r.agreement.get(JUDGE_AND_CHECK))]
            if found:
                kappas = [agreement.kappa for agreement in found if agreement.kappa is not None]
                rows.append(
                    [
                        f"{variant}/{strategy}",
                        str(sum(result.n for result in by_seed.values())),
                        str(sum(agreement.n for agreement in found)),
                        mean_cell(mean_over_seeds([agreement.share for agreement in found], questions=found[0].n)),
                        _kappa_cell(kappas),
                    ]
                )
    if not rows:
        return []
    return [
        "### Judge beside checks",
        "",
        "How often the judge's verdict was the deterministic check's, and Cohen's kappa, which is 0 for agreement by "
        "chance, and undefined where both said one thing of all answers. Outputs without an answer are not judged, nor "
        "are those on which the judge's reply could not be read.",
        "",
        *table(["strategy", "outputs", "judged by both", "the same", "kappa"], rows),
        "",
    ]


def _costs(study: Evidence) -> list[str]:
    rows = []
    for variant, results in study.results.items():
        for strategy, by_seed in results.items():
            for place, stage in enumerate(next(iter(by_seed.values())).stages):
                stages = [result.stages[place] for result in by_seed.values()]
                seconds = [stage.train_seconds for stage in stages]
                per_token = 1e6 * sum(seconds) / sum(stage.tokens for stage in stages)
                rows.append(
                    [
                        f"{variant}/{strategy}",
                        f"{place + 1} {stage.name}",
                        str(stage.steps),
                        f"{fmean(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
                        f"{stage.tokens:,}",
                        f"{stage.loss_tokens:,}",
                        f"{per_token:.1f}",
                    ]
                )
    heads = ["strategy", "stage", "steps", "seconds", "tokens", "loss tokens", "µs a token"]
    return [
        "### Cost of the stages",
        "",
        "Of the first seed; seconds are the mean of all seeds, from the fastest to the slowest. A stage that "
        "strategies share is counted with each.",
        "",
        *table(heads, rows),
        "",
    ]


def _loss_tokens(result: Result) -> int:
    return sum(stage.loss_tokens for stage in result.stages)


def _seconds(result: Result) -> float:
    return sum(stage.train_seconds for stage in result.stages)
