"""Which rows of a data set repeat another one, beside a search that compares every row with those before it."""

import numpy as np
import pytest

from sftkey_dist.data.repeats import RepeatedRow, Repeats


def searched(rows):
    """Repeats of rows (id, prompt, response), in the order of the rows."""
    duplicates, conflicts, prompts = [], [], set()
    for number, (name, prompt, response) in enumerate(rows):
        before = [row for row in rows[:number] if row[1] == prompt]
        same = [row for row in before if row[2] == response]
        if same and same[0][0] != name:
            duplicates.append(RepeatedRow(name, same[0][0]))
        elif before and not same:
            conflicts.append(RepeatedRow(name, before[0][0]))
            prompts.add(prompt)
    return Repeats(tuple(dict.fromkeys(duplicates)), tuple(conflicts), len(prompts))


@pytest.mark.parametrize("seed", range(20))
def test_repeats_are_those_of_a_plain_search(seed):
    draw = np.random.default_rng(seed)
    rows = [(f"r{i}", int(draw.integers(6)), int(draw.integers(3))) for i in range(20)]
    rows = [row for row in rows for _ in range(1 + seed % 2)]  # a mixture with a weight of 2
    hashes = np.array([(0, 10 * prompt + response, prompt) for _, prompt, response in rows], np.uint64)
    found = Repeats.among(lambda: [name for name, _, _ in rows], hashes)
    assert found == searched(rows)
    assert found.duplicates
    assert found.conflicts


def test_no_origin_is_read_where_nothing_repeats():
    hashes = np.array([(0, 1, 1), (0, 2, 2)], np.uint64)
    assert Repeats.among(lambda: pytest.fail("origins were read"), hashes) == Repeats()
