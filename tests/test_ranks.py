"""Self-rank and proper order on tables whose answers are known."""

import pytest
import torch
from scipy.stats import binom

from explainlib.metrics import proper_order, self_rank


def test_self_rank_counts_the_more_helpful():
    scores = torch.tensor([[-5.0, -1.0, 2.0], [-5.0, -1.0, 2.0], [-5.0, -1.0, 2.0]])
    assert self_rank(scores).tolist() == [0, 1, 2]
    assert self_rank(scores, torch.tensor([2, 0, 1])).tolist() == [2, 0, 1]
    assert self_rank(torch.zeros(2, 3)).tolist() == [0, 0]


def test_self_rank_refuses_what_has_no_own():
    with pytest.raises(ValueError, match="own="):
        self_rank(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="0 to 1"):
        self_rank(torch.zeros(2, 2), torch.tensor([0, 2]))


def test_proper_order_and_its_chance():
    scores = torch.tensor([[-1.0, -2.0, 0.5, 0.0]] * 9 + [[1.0, 2.0, 0.5, 0.0]])
    found = proper_order(scores, torch.tensor([True, True, False, False]))
    assert (found.count, found.tests) == (9, 10)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert found.distance == pytest.approx(4 / 10**0.5 * 2)


def test_mean_and_median_can_disagree():
    scores = torch.tensor([[-9.0, 1.0, 1.0, 0.0]])
    kinds = torch.tensor([True, True, True, False])
    assert proper_order(scores, kinds).count == 1 and proper_order(scores, kinds, by="median").count == 0
    with pytest.raises(ValueError, match="one kind only"):
        proper_order(scores, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="median"):
        proper_order(scores, kinds, by="mode")
