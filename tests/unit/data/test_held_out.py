import numpy as np

from sftkey_dist.data.held_out import held_out_indices


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


def test_none_are_held_out_by_default_and_never_more_than_there_are():
    assert len(held_out_indices(hashes([1, 2]), 0, seed=0)) == 0
    assert len(held_out_indices(hashes([1, 2]), 9, seed=0)) == 2
