import numpy as np
import pytest
import torch

from sftkey_dist.training.forward.collate import pack, with_targets_of
from sftkey_dist.training.forward.loss import CORRECT, COUNT, NLL, loss_sums, segment_metrics, token_losses

PROMPT, END, REASONING, ANSWER = 0, 1, 2, 3
WEIGHTS = (0.0, 0.5, 0.25, 2.0)
A = (np.array([5, 6, 7, 8, 9]), np.array([PROMPT, PROMPT, REASONING, ANSWER, END]))
B = (np.array([1, 2, 3]), np.array([PROMPT, ANSWER, END]))


def test_row_has_restarting_positions_and_targets_one_token_ahead():
    row = pack([A, B], WEIGHTS, observe_all=False)
    assert row.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert row.example_lengths == (5, 3)
    assert row.kept_positions.tolist() == [1, 2, 3, 5, 6]
    assert row.targets.tolist() == [7, 8, 9, 2, 3]
    assert row.target_segments.tolist() == [REASONING, ANSWER, END, ANSWER, END]
    assert row.target_weights.tolist() == [0.25, 2.0, 0.5, 2.0, 0.5]


def test_only_weighted_positions_are_kept_unless_all_are_observed():
    key = (0.0, 0.0, 0.0, 1.0)
    assert pack([A, B], key, observe_all=False).targets.tolist() == [8, 2]
    observed = pack([A, B], key, observe_all=True)
    assert observed.targets.tolist() == [7, 8, 9, 2, 3]
    assert observed.target_weights.tolist() == [0, 1, 0, 1, 0]


def test_a_row_can_be_had_with_the_targets_of_some_segments_alone():
    row = pack([A, B], WEIGHTS, observe_all=True)
    answers, rest = with_targets_of(row, {ANSWER}), with_targets_of(row, {PROMPT, END, REASONING})
    assert answers.input_ids is row.input_ids
    assert answers.kept_positions.tolist() == [2, 5]
    assert (answers.targets.tolist(), answers.target_segments.tolist()) == ([8, 2], [ANSWER, ANSWER])
    assert answers.target_weights.tolist() == [2.0, 2.0]
    assert sorted(answers.targets.tolist() + rest.targets.tolist()) == sorted(row.targets.tolist())
    none = with_targets_of(row, {PROMPT})
    assert not none.has_targets
    assert none.target_weights.tolist() == [0]
    assert with_targets_of(none, {PROMPT}).has_targets is False, "what stands for no target is none"


def test_first_token_of_an_example_is_never_predicted_from_the_one_before():
    row = pack([A, B], WEIGHTS, observe_all=True)
    assert 4 not in row.kept_positions.tolist()


def test_dummy_row_keeps_one_position_and_adds_nothing():
    row = pack([], WEIGHTS, observe_all=False)
    logits = torch.randn(1, 11, requires_grad=True)
    sums = loss_sums(token_losses(logits, row.targets), row, 4)
    assert sums.weighted.item() == 0
    sums.weighted.backward()
    assert logits.grad.abs().sum() == 0
    assert sums.by_segment[1:].sum() == 0


def test_loss_sums_equal_a_loop_over_tokens():
    torch.manual_seed(0)
    row = pack([A, B], WEIGHTS, observe_all=False)
    logits = torch.randn(5, 11)
    logits[1, 8] = 50.0
    sums = loss_sums(token_losses(logits, row.targets), row, 4)
    expected, segments = 0.0, np.zeros((4, 3))
    for k in range(5):
        target, segment = int(row.targets[k]), int(row.target_segments[k])
        nll = -float(torch.log_softmax(logits[k].double(), -1)[target])
        expected += WEIGHTS[segment] * nll
        segments[segment] += [nll, int(logits[k].argmax()) == target, 1]
    assert sums.weighted.item() == pytest.approx(expected, rel=1e-6)
    assert sums.by_segment[1:].numpy() == pytest.approx(segments[1:], rel=1e-5, abs=1e-6)
    assert sums.by_segment[:, COUNT].tolist() == [0, 2, 1, 2]
    assert sums.by_segment[ANSWER, CORRECT] >= 1
    assert sums.by_segment[REASONING, NLL] > 0


def test_a_row_without_any_target_keeps_its_tokens_and_adds_nothing():
    row = pack([A, B], (0.0, 0.0, 0.0, 0.0), observe_all=False)
    assert row.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3]]
    assert not row.has_targets
    assert row.kept_positions.tolist() == [0]
    sums = loss_sums(token_losses(torch.zeros(1, 10), row.targets), row, 4)
    assert float(sums.weighted) == 0
    assert float(sums.by_segment.abs().sum()) == 0


def test_weights_of_rows_multiply_those_of_segments_and_a_trained_prompt_begins_with_its_second_token():
    a = (np.array([5, 6, 7]), np.array([0, 0, 1]))
    row = pack([a, a], (0.5, 2.0), observe_all=False, example_weights=np.array([1.0, 3.0], np.float32))
    assert row.kept_positions.tolist() == [0, 1, 3, 4]
    assert row.target_weights.tolist() == [0.5, 2.0, 1.5, 6.0]


def test_segments_have_means_over_their_tokens():
    found = segment_metrics(("prompt", "answer"), torch.tensor([[0.0, 0.0, 0.0], [6.0, 3.0, 4.0]]))
    assert list(found) == ["answer"]
    assert (found["answer"].nll, found["answer"].token_accuracy, found["answer"].tokens) == (1.5, 0.75, 4)
