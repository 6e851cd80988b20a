"""What group influence reports: sizes of terms, failed groups, trust in numbers, and how many groups are in memory."""

import warnings

import pytest
import torch

import explainlib as xl
from explainlib.influence.groups import effect, quadratic, selection
from explainlib.influence.groups.removal import require_solved
from explainlib.influence.groups.selection import _largest
from explainlib.influence.groups.trust import _diagnosis
from explainlib.solvers.solution import Solution, SolverError
from tests.problems import classes, logistic_risk

D = torch.float64
GROUPS = [[0], [1, 2], [3, 5, 7], [4], [9, 8]]


def test_terms_that_grow_are_counted():
    first = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]], dtype=D)
    second = torch.tensor([[0.0, 5.0], [0.0, 2.0], [6.0, 8.0], [0.0, 0.0]], dtype=D)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effect._warn_of_large_terms(first[:1], second[:1])  # as large as the first
        effect._warn_of_large_terms(first[3:], second[3:])
    with pytest.warns(xl.influence.SeriesWarning, match="for 2 of 4 groups, 5.0 times at most"):
        effect._warn_of_large_terms(first, second)


@pytest.mark.parametrize(("count", "named"), [(10, "16"), (11, "16, ...")])
def test_up_to_ten_failed_groups_are_named(count, named):
    """The first of the batch is group 7, and every other one is solved."""
    rows = ("max_steps",) * count + ("converged",)
    found = Solution(torch.ones(count + 1, 2), "max_steps", 3, torch.ones(count + 1), detail="told before", rows=rows)
    with pytest.raises(SolverError, match=f"told before; groups 7, 8, 9, 10, 11, 12, 13, 14, 15, {named}\\)"):
        require_solved([found], 7, "raise")
    with pytest.raises(SolverError, match=r"steps; groups 0\)"):
        require_solved([Solution(torch.ones(2, 2), "max_steps", 3, torch.ones(2), rows=rows[-2:])], 0, "raise")


@pytest.mark.parametrize("order", [1, 2, "newton"])
def test_groups_are_in_memory_a_batch_at_a_time(order, monkeypatch):
    risk, sizes = logistic_risk(), []
    whole = xl.influence.removal_effect(risk, GROUPS, order=order).theta
    made = effect.require_solved
    monkeypatch.setattr(effect, "ENTRIES", 2 * risk.n * 3 + 1)
    monkeypatch.setattr(
        effect, "require_solved", lambda found, *rest: sizes.append(len(found[0].value)) or made(found, *rest)
    )
    parts = xl.influence.removal_effect(risk, GROUPS, order=order)
    assert sizes == [2, 2, 1] and torch.allclose(parts.theta, whole, atol=1e-9)
    assert len(parts.status) == 5 and all(status.startswith("converged, |gradient| ") for status in parts.status)


def test_the_status_tells_the_gradient():
    risk = logistic_risk()
    away = risk.at(risk.theta + 0.1)
    with pytest.warns(xl.NotAtMinimumWarning):
        found = xl.influence.removal_effect(away, [[0]])
    assert found.status == (f"converged, |gradient| {float(away.gradient().norm()):.1e}",)
    silent = xl.influence.removal_effect(away, [[0]], curvature="gauss_newton")
    assert silent.status == found.status


def test_indicators_are_in_memory_a_batch_at_a_time(monkeypatch):
    risk, test, sizes = logistic_risk(), classes(4, seed=3), []
    whole, made = xl.influence.second_order_influence(risk, test, GROUPS), quadratic.GroupQuadratic.value
    monkeypatch.setattr(quadratic, "ENTRIES", 2 * risk.n * 3 + 1)
    monkeypatch.setattr(quadratic.GroupQuadratic, "value", lambda self, w, k: sizes.append(len(w)) or made(self, w, k))
    assert torch.allclose(xl.influence.second_order_influence(risk, test, GROUPS), whole, atol=1e-14)
    assert sizes == [2, 2, 1]


def test_what_belongs_to_the_second_order_alone():
    for order in (1, "newton"):
        with pytest.raises(ValueError, match="third_derivative=True belongs to order=2"):
            xl.influence.removal_effect(logistic_risk(), GROUPS, order=order, third_derivative=True)


def test_trust_is_told_in_shares_and_sizes():
    risk = logistic_risk()
    first, second = (xl.influence.removal_effect(risk, GROUPS, order=order) for order in (1, 2))
    assert first.theta2 is None and second.theta2 is not None
    trust, short = xl.influence.series_trust(second), xl.influence.series_trust(first)
    assert torch.allclose(trust.fraction, torch.tensor([1, 2, 3, 1, 2], dtype=D) / 40)
    assert torch.allclose(trust.second_over_first, second.theta2.norm(dim=1) / second.theta1.norm(dim=1))
    assert torch.equal(trust.ratio, short.ratio) and short.second_over_first.isnan().all()
    assert trust.words[1] == _diagnosis(float(trust.ratio[1]), float(trust.second_over_first[1]))
    assert f"ratio {float(trust.ratio[1]):.2f}, second term" in trust.words[1] and "second" not in short.words[1]
    assert trust.trusted == tuple(words.startswith("trusted") for words in trust.words)


def test_the_bounds_of_trust_belong_to_the_better_word():
    nan = float("nan")
    for ratio, word in ((0.25, "trusted"), (0.251, "slow"), (0.5, "slow"), (0.501, "doubtful"), (0.999, "doubtful")):
        assert _diagnosis(ratio, nan).startswith(word) and _diagnosis(0.0, ratio).startswith(word)
    assert _diagnosis(1.0, nan).startswith("not trusted") and _diagnosis(0.0, 1.0).startswith("not trusted")


def test_equal_scores_go_by_their_ties_and_then_by_place():
    score, ties = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 5.0, 0.0, 9.0])
    assert _largest(score, 3).tolist() == [1, 0, 2]
    assert _largest(score, 3, ties=ties).tolist() == [1, 2, 0]
    assert _largest(torch.zeros(100), 4).tolist() == _largest(torch.zeros(100), 4, ties=torch.zeros(100)).tolist()


@pytest.mark.parametrize("more", [0, -1])
def test_swaps_follow_where_their_tables_are_small_enough(more, monkeypatch):
    """n p numbers up to the limit, which belongs to them."""
    risk, test, made = logistic_risk(), classes(4, seed=3), []
    monkeypatch.setattr(selection, "SWAP_LIMIT", risk.n * risk.p + more)
    real = selection.Swaps
    monkeypatch.setattr(selection, "Swaps", lambda *given: made.append(given) or real(*given))
    assert len(xl.influence.influential_group(risk, test, 5)) == 5 and len(made) == 1 + more
