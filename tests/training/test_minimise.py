"""Minima against closed forms, one by one against batches, and honest failure."""

import sys

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.training import MinimiseError, MinimiseWarning, minimise
from explainlib.training.weighted import WeightedHeads, WeightedRisks
from tests.problems import (
    classes,
    convolution,
    dense_hessian,
    general,
    images,
    logistic_risk,
    network_risk,
    normal,
    ridge_risk,
    targets,
)


def random_weights(g, n, seed=0):
    return 2 * torch.rand(g, n, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("o", [1, 3])
def test_ridge_regression_is_its_closed_form(o):
    train = targets(20, o=o)
    risk = minimise(xl.Risk(nn.Linear(4, o).double(), train, loss="squared_error", l2=0.3), tolerance=1e-12)
    x = torch.cat([train.x, torch.ones(20, 1).double()], 1)
    want = torch.linalg.solve(2 / 20 * x.T @ x + 0.3 * torch.eye(5).double(), 2 / 20 * x.T @ train.y)
    assert torch.allclose(risk.head.matrix(risk.theta), want.T, atol=1e-11)


@pytest.mark.parametrize(
    "make", [logistic_risk, lambda: general(logistic_risk()), ridge_risk], ids=["head", "general", "ridge"]
)
@pytest.mark.parametrize("start", [0.0, 3.0])
def test_the_gradient_is_below_the_tolerance_from_anywhere(make, start):
    there = make()
    for tolerance in (1e-4, 1e-12):
        got = minimise(there.at(start * normal(there.p, seed=2)), tolerance=tolerance)
        assert got.gradient().norm() <= tolerance
    assert torch.allclose(got.theta, there.theta, atol=1e-9)


def test_networks_converge_to_a_minimum():
    for risk in (network_risk("tanh", n=40, l2=0.05), xl.Risk(convolution(), images(20), l2=0.2)):
        got = minimise(risk)
        assert got.gradient().norm() <= 1e-10
        assert torch.linalg.eigvalsh(dense_hessian(got)).min() > -1e-8


def test_a_last_layer_alone():
    got = minimise(network_risk("relu", parameters="last"))
    assert got.gradient().norm() <= 1e-10 and torch.equal(
        got.model.linear1.weight, network_risk("relu").model.linear1.weight
    )


@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk()), ridge_risk, lambda: network_risk(l2=0.1)],
                         ids=["head", "general", "ridge", "network"])  # fmt: skip
def test_a_batch_is_its_rows(make):
    risk = make()
    weights = random_weights(5, risk.n)
    weights[1, : risk.n // 2] = 0
    weights[2] = 1
    together = minimise(risk, weights=weights, tolerance=1e-11)
    assert len(together) == 5 and set(together.status) == {"converged"} and together.gradient_norm.max() <= 1e-11
    for g in range(5):
        alone = minimise(risk, weights=weights[g], tolerance=1e-11)
        assert torch.allclose(together.theta[g], alone.theta, atol=1e-8)
        assert together[g].gradient().norm() <= 1.1e-11 and torch.equal(alone.weights, weights[g])


def test_batches_in_pieces(monkeypatch):
    risk, weights = logistic_risk(), random_weights(5, 40)
    whole = minimise(risk, weights=weights, tolerance=1e-12)
    monkeypatch.setattr(sys.modules["explainlib.training.minimise"], "ENTRIES", 1)
    assert torch.allclose(minimise(risk, weights=weights, tolerance=1e-12).theta, whole.theta, atol=1e-10)


@pytest.mark.parametrize("make", [logistic_risk, ridge_risk])
def test_weighted_heads_are_weighted_risks(make):
    risk = make()
    weights, theta = random_weights(3, risk.n), normal(3, risk.p, seed=3)
    v = normal(3, risk.p, seed=4)
    fast, slow = WeightedHeads(risk, weights), WeightedRisks(risk, weights)
    assert torch.allclose(fast.values(theta), slow.values(theta))
    assert torch.allclose(fast.gradients(theta), slow.gradients(theta))
    assert torch.allclose(fast.operator(theta)(v), slow.operator(theta)(v))
    assert torch.allclose(fast.third_products(theta, v), slow.third_products(theta, v))
    same = theta[:1].expand(3, -1)  # one parameter vector under several weights: its outputs are computed once
    assert torch.allclose(fast.values(same), slow.values(same.clone()))
    for g in range(3):
        one = risk.reweighted(weights[g]).at(theta[g])
        assert torch.allclose(fast.values(theta)[g], one.value()) and torch.allclose(
            fast.gradients(theta)[g], one.gradient()
        )
        assert torch.allclose(fast.operator(theta)(v)[g], xl.curvature.hessian_product(one, v[g]))
        h = 1e-4
        up, down = (xl.curvature.hessian_product(one.at(theta[g] + s * h * v[g]), v[g]) for s in (1, -1))
        assert torch.allclose(fast.third_products(theta, v)[g], (up - down) / (2 * h), atol=1e-5)


def test_parts_of_weighted_risks(monkeypatch):
    risk = network_risk()
    weights, theta = random_weights(2, risk.n), normal(2, risk.p)
    whole = WeightedRisks(risk, weights).gradients(theta)
    monkeypatch.setattr("explainlib.risk.risk.PART", 5)
    assert torch.allclose(WeightedRisks(risk, weights).gradients(theta), whole, atol=1e-13)


def separable():
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]).double()
    return xl.Risk(xl.models.logistic(1, 2, dtype=torch.float64), xl.datasets.Examples(x, torch.tensor([0, 0, 1, 1])))


def test_separable_data_without_ridge_have_no_minimum():
    with pytest.raises(MinimiseError, match="separable.*add l2") as caught:
        minimise(separable(), tolerance=1e-14, max_steps=8)
    assert caught.value.minima.status == ("max_steps",) and len(caught.value.minima) == 1
    with pytest.warns(MinimiseWarning, match="1 of 1") as warned:
        got = minimise(separable(), tolerance=1e-14, max_steps=8, on_failure="warn")
    assert isinstance(got, xl.Risk) and warned[0].filename == __file__


@pytest.mark.parametrize("make", [separable, lambda: general(separable())], ids=["head", "general"])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-10, 1e-12])
def test_a_fading_gradient_is_not_a_minimum(make, tolerance):
    """Newton reaches |g| < 1e-10 here in 25 steps, each as long as the one before: the parameters run to infinity."""
    with pytest.raises(MinimiseError, match="unbounded.*no finite minimum.*add l2"):
        minimise(make(), tolerance=tolerance)
    base = make()
    with_ridge = xl.Risk(base.model, base.train, l2=1e-3)
    assert minimise(with_ridge, tolerance=tolerance).gradient().norm() <= tolerance


def test_one_separable_class_is_enough():
    """Setosa stands apart from the other irises, which overlap: no finite minimum, though the risk stays above zero."""
    iris = xl.datasets.load("iris").train.double()
    with pytest.raises(MinimiseError, match="add l2"):
        minimise(xl.Risk(xl.models.logistic(4, 3, dtype=torch.float64), iris))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [1e-5, 1e-8, 1e-10, 1e-13])
def test_overlapping_data_without_ridge_have_a_minimum(seed, tolerance):
    """Flat along the softmax's shift, and still no alarm."""
    noisy = classes(40, seed=seed)
    shuffled = xl.datasets.Examples(noisy.x, noisy.y.roll(7))
    risk = minimise(xl.Risk(xl.models.logistic(3, 3, dtype=torch.float64), shuffled), tolerance=tolerance)
    assert risk.gradient().norm() <= tolerance


def test_one_bad_problem_of_many_is_counted_and_named():
    risk = separable()
    noisy = xl.Risk(
        risk.model, xl.datasets.Examples(torch.cat([risk.train.x, -risk.train.x[:1]]), torch.tensor([0, 0, 1, 1, 0]))
    )
    weights = torch.ones(2, 5).double()
    weights[1, 4] = 0  # without the noisy example the data are separable
    with pytest.raises(MinimiseError, match="1 of 2 problems.*number 1") as caught:
        minimise(noisy, weights=weights, tolerance=1e-13, max_steps=12)
    assert caught.value.minima.status[0] == "converged"


def test_overflow_is_a_status():
    risk = xl.Risk(nn.Linear(1, 1).double(), targets(4, d=1), loss=lambda f, y: (50 * f).exp().exp().sum(-1), l2=0.1)
    with pytest.raises(MinimiseError, match="nonfinite|stalled"):
        minimise(risk.at(torch.tensor([3.0, 3.0]).double()))


def test_an_interrupt_leaves_the_risk_as_it_was(monkeypatch):
    risk = network_risk(l2=0.1)
    theta, value = risk.theta.clone(), risk.value()
    calls = []

    def sometimes(self, theta):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, theta)

    original = WeightedRisks.gradients
    monkeypatch.setattr(WeightedRisks, "gradients", sometimes)
    with pytest.raises(KeyboardInterrupt):
        minimise(risk)
    assert torch.equal(risk.theta, theta) and torch.equal(risk.value(), value)
    monkeypatch.undo()
    assert minimise(risk).gradient().norm() <= 1e-10


def test_float32_stops_at_its_own_rounding():
    risk = xl.Risk(xl.models.logistic(3, 3), classes(40).to(torch.float32), l2=0.05)
    got = minimise(risk)
    assert got.theta.dtype == torch.float32 and got.gradient().norm() < 1e-4


def test_bad_weights():
    risk = logistic_risk(12)
    bad = torch.ones(2, 12).double()
    bad[1] = 0
    with pytest.raises(ValueError, match="row 1 is all zero"):
        minimise(risk, weights=bad)
    bad[1, 3] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        minimise(risk, weights=bad)


@pytest.mark.parametrize("make", [ridge_risk, lambda: general(ridge_risk())], ids=["head", "general"])
def test_a_problem_that_overflows_leaves_the_others_alone(make):
    risk = make()
    start = risk.at(torch.full((risk.p,), 1e3).double())
    weights = torch.ones(3, risk.n).double()
    weights[1] = 1e306  # its gradient overflows at the start
    with pytest.raises(MinimiseError, match="1 of 3 problems.*number 1, nonfinite") as caught:
        minimise(start, weights=weights)
    assert caught.value.minima.status == ("converged", "nonfinite", "converged")
    assert torch.allclose(caught.value.minima.theta[[0, 2]], risk.theta.expand(2, -1), atol=1e-8)


def test_weights_replace_the_risk_s_own():
    risk = logistic_risk(12)
    weighted = risk.reweighted(torch.linspace(0.5, 1.5, 12).double())
    ones = torch.ones(1, 12).double()
    assert torch.allclose(minimise(weighted, weights=ones).theta[0], risk.theta, atol=1e-9)


def test_a_store_is_for_many_problems(tmp_path):
    with pytest.raises(ValueError, match="store is for many problems"):
        minimise(logistic_risk(12), store=tmp_path)
    assert not list(tmp_path.iterdir())
