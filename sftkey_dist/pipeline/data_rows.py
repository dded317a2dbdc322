"""Lists the rows that a preparation has dropped, and those that a person should look at."""

from collections.abc import Iterator, Sequence

from sftkey_dist.data.example import Refusal
from sftkey_dist.data.repeats import Repeats, repeats_of
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.run_dir.artifacts.run import NotedRow


def noted_rows(preparation: Preparation) -> Iterator[NotedRow]:
    """Every such row of the training sets and of the test sets."""
    for report, store in zip(preparation.reports, preparation.stores.values(), strict=True):
        yield from _noted(report.name, store.refusals, [store.repeats])
    of_sets = list(repeats_of(preparation.test).values())
    yield from _noted(preparation.test_report.name, preparation.test_refusals, of_sets)


def _noted(name: str, refusals: Sequence[Refusal], repeats: Sequence[Repeats]) -> Iterator[NotedRow]:
    for refusal in refusals:
        yield NotedRow(name, refusal.id, refusal.reason, refusal.detail)
    for of_set in repeats:
        for row in of_set.duplicates:
            yield NotedRow(name, row.id, "repeats", f"the prompt and the response of {row.earlier}")
        for row in of_set.conflicts:
            yield NotedRow(name, row.id, "other_response", f"the prompt of {row.earlier} with another response")
