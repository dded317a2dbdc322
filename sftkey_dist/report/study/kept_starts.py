"""In how many runs of a study a guard kept the model that a stage began with, so that the stage changed nothing."""

from collections import Counter
from collections.abc import Mapping

from sftkey_dist.report.markdown import escaped
from sftkey_dist.report.study.evidence import Result


def kept_starts(results: Mapping[str, Mapping[int, Result]]) -> list[str]:
    """Lines of Markdown about the strategies of a variant, of the runs that recorded it; empty if there is nothing."""
    lines = []
    for strategy, by_seed in results.items():
        stages = [stage for result in by_seed.values() for stage in result.stages]
        found = Counter(stage.name for stage in stages if stage.guard is not None and stage.guard.kept_the_start)
        for name, count in found.items():
            what = f"the guard kept the model that stage {name} began with"
            lines.append(f"- {escaped(f'{strategy}: in {count} of {len(by_seed)} seeds {what}')}.")
    return [*lines, ""] if lines else []
