import numpy as np
import pytest

from sftkey_dist.data.held_out import held_out_indices, without_copies


def hashes(prompts: list[int]) -> np.ndarray:
    return np.array([[prompt * 7919 + 13, number] for number, prompt in enumerate(prompts)], dtype=np.uint64)


def test_the_same_prompts_are_held_out_whatever_else_is_in_the_data():
    prompts = list(range(500))
    chosen = held_out_indices(hashes(prompts), 40, seed=3)
    assert len(chosen) == 40
    reordered = prompts[::-1]
    assert {prompts[i] for i in chosen} == {reordered[i] for i in held_out_indices(hashes(reordered), 40, seed=3)}
    assert not np.array_equal(chosen, held_out_indices(hashes(prompts), 40, seed=4))


def test_all_responses_to_a_prompt_go_together():
    prompts = [number // 3 for number in range(300)]
    chosen = held_out_indices(hashes(prompts), 10, seed=0)
    assert 10 <= len(chosen) <= 12
    held = {prompts[i] for i in chosen}
    assert not held & {prompts[i] for i in set(range(300)) - set(chosen.tolist())}


@pytest.mark.parametrize("seed", range(5))
def test_forms_that_dropped_other_rows_hold_out_the_same_prompts(seed):
    """One form is longer, so that its longest rows were dropped; in another, malformed ones were."""
    rng = np.random.default_rng(seed)
    forms = [[p // 2 for p in range(600) if rng.random() < kept] for kept in (0.9, 0.6, 1.0)]
    of_forms = [hashes(prompts) for prompts in forms]
    held = []
    for place, (prompts, own) in enumerate(zip(forms, of_forms, strict=True)):
        others = [other for number, other in enumerate(of_forms) if number != place]
        chosen = held_out_indices(own, 40, seed, others)
        assert len(chosen) >= 40
        held.append({prompts[i] for i in chosen})
        assert not held[-1] & {prompts[i] for i in set(range(len(prompts))) - set(chosen.tolist())}
        again = [other[np.isin(other[:, 0], own[chosen, 0])] for other in others]
        of_the_guard = held_out_indices(own[chosen], 7, seed, others)
        assert np.array_equal(of_the_guard, held_out_indices(own[chosen], 7, seed, again))
    assert held[0] == held[1] == held[2]
    alone = [
        {prompts[i] for i in held_out_indices(own, 40, seed)} for prompts, own in zip(forms, of_forms, strict=True)
    ]
    assert not alone[0] == alone[1] == alone[2], "each by itself, they would differ"


def test_equal_forms_choose_as_each_by_itself():
    prompts = hashes(list(range(200)))
    assert np.array_equal(held_out_indices(prompts, 20, 1, [prompts[::-1]]), held_out_indices(prompts, 20, 1))


def test_forms_without_a_prompt_in_common_hold_out_none():
    assert len(held_out_indices(hashes([1, 2]), 2, 0, [hashes([3, 4])])) == 0


def test_none_are_held_out_by_default_and_never_more_than_there_are():
    assert len(held_out_indices(hashes([1, 2]), 0, seed=0)) == 0
    assert len(held_out_indices(hashes([1, 2]), 9, seed=0)) == 2


def test_copies_of_a_mixture_count_as_one_example():
    prompts = [number % 100 for number in range(1000)]
    copies = np.array([[prompt * 7919 + 13, prompt] for prompt in prompts], dtype=np.uint64)
    chosen = held_out_indices(copies, 20, seed=0)
    assert len({prompts[i] for i in chosen}) == 20
    assert len(chosen) == 200, "all copies are held out together"
    measured = without_copies(chosen, copies)
    assert sorted(prompts[i] for i in measured) == sorted({prompts[i] for i in chosen}), "and measured once"
