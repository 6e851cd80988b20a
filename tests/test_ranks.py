"""Self-rank and proper order on tables whose answers are known."""

from itertools import permutations

import pytest
import torch
from scipy.stats import binom

from explainlib.metrics import proper_order, self_rank
from explainlib.metrics.ties import levels


def test_self_rank_counts_the_more_helpful():
    scores = torch.tensor([[-5.0, -1.0, 2.0], [-5.0, -1.0, 2.0], [-5.0, -1.0, 2.0]])
    assert self_rank(scores).tolist() == [0, 1, 2]
    assert self_rank(scores, torch.tensor([2, 0, 1])).tolist() == [2, 0, 1]


def test_ties_take_the_middle_of_their_ranks():
    """The expected rank over all orders of what ties, by listing the orders; 0.1 + 0.2 ties with 0.3."""
    assert self_rank(torch.zeros(2, 3)).tolist() == [1, 1]
    scores = torch.tensor([[0.3, 0.1 + 0.2, -1.0, 0.3, 5.0]], dtype=torch.float64)
    places = [order.index(0) for order in permutations([0, 1, 3])]
    assert self_rank(scores, torch.tensor([0])).tolist() == [1 + sum(places) / len(places)]
    assert self_rank(scores, torch.tensor([4])).tolist() == [4]
    tiny = torch.tensor([[1e-26, 2e-26, 1.0]])  # far below the rounding of the largest, and in order all the same
    assert self_rank(tiny, torch.tensor([1])).tolist() == [1]


def test_self_rank_refuses_what_has_no_own():
    with pytest.raises(ValueError, match="own="):
        self_rank(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="0 to 1"):
        self_rank(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="0 to 1"):
        self_rank(torch.zeros(2, 2), torch.tensor([-1, 1]))


def test_proper_order_and_its_chance():
    scores = torch.tensor([[-1.0, -2.0, 0.5, 0.0]] * 9 + [[1.0, 2.0, 0.5, 0.0]])
    found = proper_order(scores, torch.tensor([True, True, False, False]))
    assert (found.count, found.tests) == (9, 10)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert found.distance == pytest.approx(4 / 10**0.5 * 2)


def test_constant_scores_are_in_no_order():
    """Ties speak for neither side: no significance comes from them, and scipy's sign test is what is left."""
    regular = torch.tensor([True, False, False, True, False])
    nothing = proper_order(torch.full((64, 5), 0.1), regular)
    assert (nothing.count, nothing.ties, nothing.p_value, nothing.distance) == (0, 64, 1.0, 0.0)
    scores = torch.full((12, 5), 0.1, dtype=torch.float64)
    scores[:9, 1] = 1.0
    found = proper_order(scores, regular)
    assert (found.count, found.tests, found.ties) == (9, 12, 3)
    assert found.p_value == pytest.approx(2 * binom.cdf(0, 9, 0.5)) and found.distance == pytest.approx(3.0)


def test_the_median_of_an_even_number_favours_no_side():
    """The lower middle would put the two kinds in order; their medians are equal."""
    scores = torch.tensor([[0.0, 2.0, 1.0, 0.5, 1.5]])
    kinds = torch.tensor([True, True, False, False, False])
    assert proper_order(scores, kinds, by="median").ties == 1


@pytest.mark.parametrize("unit", [2.0**-60, 1.0, 2.0**60])
def test_the_order_has_no_unit(unit):
    """A tie by rounding and two tests in order, in any unit; scores that are all zero are ties as well."""
    scores = torch.tensor([[0.3, 0.1 + 0.2], [-1.0, -0.999], [-3.0, 4.0]], dtype=torch.float64) * unit
    found = proper_order(scores, torch.tensor([True, False]))
    assert (found.count, found.ties) == (2, 1)
    assert proper_order(torch.zeros(3, 2), torch.tensor([True, False])).ties == 3


def test_ties_are_equal_to_eight_units_in_the_last_place():
    """Of the larger of the two neighbours, whatever else is in the row; sums are equal up to a slack of their own."""
    eps = torch.finfo(torch.float64).eps
    near, apart = (torch.tensor([[-1e9, 1 - k * eps, 1.0]], dtype=torch.float64) for k in (8, 9))
    assert levels(near).tolist() == [[0, 1, 1]] and levels(apart).tolist() == [[0, 1, 2]]
    assert levels(-near).tolist() == [[1, 0, 0]] and levels(-apart).tolist() == [[2, 1, 0]]
    sums = torch.tensor([[0.0, 1.0, 2.5], [0.0, 1.0, 2.5]])
    assert levels(sums, torch.tensor([1.0, 1.5])).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_mean_and_median_can_disagree():
    scores = torch.tensor([[-9.0, 1.0, 1.0, 0.0]])
    kinds = torch.tensor([True, True, True, False])
    assert proper_order(scores, kinds).count == 1 and proper_order(scores, kinds, by="median").count == 0
    with pytest.raises(ValueError, match="one kind only"):
        proper_order(scores, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="median"):
        proper_order(scores, kinds, by="mode")
