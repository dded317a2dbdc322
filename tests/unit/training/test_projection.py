"""Projected gradients from inner products alone, against the paper's algorithm on the gradients themselves."""

import itertools

import pytest
import torch

from sftkey_dist.training.steps.projection import project, projection_factors, projection_orders
from tests.distributed.reference import projected_sum


class OneRank:
    device = torch.device("cpu")

    def all_reduce_sum(self, values):
        return values


def drawn(number: int, seed: int) -> list[torch.Tensor]:
    """Gradients of which about half conflict."""
    return list(torch.randn(number, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("number", [2, 3, 5])
def test_factors_give_what_the_algorithm_of_the_paper_gives(number):
    num_projected = 0
    for seed in range(20):
        gradients = drawn(number, seed)
        table, orders = torch.stack(gradients), projection_orders(number, seed, step=3)
        factors = projection_factors(table @ table.T, orders)
        torch.testing.assert_close(factors @ table, projected_sum(gradients, orders))
        num_projected += bool((factors != 1).any())
    assert num_projected > 5


def test_what_is_left_of_two_gradients_hurts_neither():
    gradients = {"reasoning": torch.tensor([1.0, 0.0]), "answer": torch.tensor([-1.0, 1.0])}
    total, projection = project(OneRank(), {name: g.clone() for name, g in gradients.items()}, seed=0, step=0)
    assert total.tolist() == [0.5, 1.5]
    assert [float(total @ gradient) for gradient in gradients.values()] == [0.5, 1.0]
    assert projection.conflicts == 1
    assert projection.gradients.norms == {"reasoning": 1.0, "answer": pytest.approx(2**0.5)}
    assert projection.gradients.cosines == {"reasoning and answer": pytest.approx(-(0.5**0.5))}


def test_gradients_that_agree_are_added_as_they_are():
    gradients = {"a": torch.tensor([1.0, 0.0, 2.0]), "b": torch.tensor([0.0, 3.0, 0.0]), "c": torch.zeros(3)}
    total, projection = project(OneRank(), gradients, seed=0, step=0)
    assert total.tolist() == [1.0, 3.0, 2.0]
    assert projection.conflicts == 0


def test_the_order_is_drawn_from_the_seed_and_the_step():
    orders = {(seed, step): projection_orders(4, seed, step) for seed in range(3) for step in range(9)}
    for found in orders.values():
        assert [sorted([own, *order]) for own, order in enumerate(found)] == [[0, 1, 2, 3]] * 4
    assert len({str(found) for found in orders.values()}) > 20
    assert {str(projection_orders(3, 0, step)[0]) for step in range(20)} == {"[1, 2]", "[2, 1]"}
    assert projection_orders(4, 1, 2) == orders[1, 2]


def test_the_order_changes_the_sum_of_three_gradients():
    gradients = drawn(3, seed=1)
    products = torch.stack(gradients) @ torch.stack(gradients).T
    sums = {
        tuple(projection_factors(products, orders).tolist())
        for orders in itertools.product(*(itertools.permutations({0, 1, 2} - {own}) for own in range(3)))
    }
    assert len(sums) > 1
