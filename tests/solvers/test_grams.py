"""Woodbury through Gram matrices against the dense inverse, weights and both sides of the solve included."""

import copy

import pytest
import torch

import explainlib as xl
from explainlib.curvature import empirical_fisher, gauss_newton
from explainlib.datasets import Examples
from explainlib.layerwise import gradients
from explainlib.solvers import GramInverse
from tests.problems import classes, normal

MATRICES = {"gauss_newton": gauss_newton, "empirical_fisher": empirical_fisher}


def wide_risk(l2=0.0, least=0.0):
    """Return a risk of more parameters than rows, with different weights."""
    risk = xl.Risk(xl.models.mlp([3, 40, 3], "tanh", seed=1, dtype=torch.float64), classes(12), l2=l2)
    assert risk.p > risk.n * risk.n_outputs
    return risk.reweighted(least + torch.arange(12).double() / 5)


def inverse(risk, curvature, damping):
    return torch.linalg.inv(MATRICES[curvature](risk) + damping * torch.eye(risk.p, dtype=torch.float64))


@pytest.mark.parametrize("curvature", MATRICES)
@pytest.mark.parametrize("left, right", [(5, 9), (9, 5)])
def test_it_is_the_dense_inverse(curvature, left, right):
    risk = wide_risk(l2=0.01)
    sides = [
        gradients(risk.parameters, risk.theta, normal(size, 3, seed=size), normal(size, 3, seed=size + 1))
        for size in (left, right)
    ]
    G, G_ = (xl.layerwise.per_example(side) for side in sides)
    want = G @ inverse(risk, curvature, 0.02) @ G_.T
    got = GramInverse(risk, curvature=curvature, damping=0.02).between(*sides)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


@pytest.mark.parametrize("curvature", MATRICES)
@pytest.mark.parametrize("solver", ["low_rank", xl.solvers.LowRankSolver()])
@pytest.mark.parametrize("least", [0.0, 0.3])  # with a weight of zero, and with none
def test_influence_forms_no_gradient(curvature, solver, least, monkeypatch):
    risk, test = wide_risk(least=least), classes(4, seed=3)
    want = -risk.loss_gradients(test) @ inverse(risk, curvature, 0.02) @ risk.loss_gradients().T
    monkeypatch.setattr(xl.Risk, "loss_gradients", lambda *args: pytest.fail("gradients were formed"))
    got = xl.influence.loss_influence(risk, test, curvature=curvature, damping=0.02, solver=solver)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_what_rounding_may_take_does_not_depend_on_the_unit(scale):
    risk = wide_risk(l2=0.01)
    G, G_ = (
        gradients(risk.parameters, risk.theta, normal(5, 3, seed=k), scale * normal(5, 3, seed=k + 1)) for k in (1, 3)
    )
    made = GramInverse(risk, curvature="gauss_newton", damping=0.02)
    want = xl.layerwise.per_example(G) @ inverse(risk, "gauss_newton", 0.02) @ xl.layerwise.per_example(G_).T
    torch.testing.assert_close(made.between(G, G_), want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


def test_no_inverse_and_no_root():
    risk = wide_risk()
    with pytest.raises(ValueError, match="null space here, so its inverse needs l2 in the risk or damping"):
        GramInverse(risk, curvature="gauss_newton", damping=0.0)
    with pytest.raises(ValueError, match="null space here, so its inverse needs damping"):  # a ridge would not help
        GramInverse(wide_risk(l2=0.1), curvature="empirical_fisher", damping=0.0)
    with pytest.raises(ValueError, match="negative weight"):
        GramInverse(risk.reweighted(-torch.ones(12).double()), curvature="empirical_fisher", damping=1.0)


@pytest.mark.parametrize("curvature", MATRICES)
@pytest.mark.parametrize("damping", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8])
def test_in_float32_it_is_right_or_refused(curvature, damping):
    """G G'^T less almost all of itself: at 1e-6 nothing but rounding is left, and it was returned."""
    train, test = classes(30), classes(7, seed=5)
    model = xl.models.mlp([3, 60, 3], "tanh", seed=1, dtype=torch.float64)
    risk = xl.Risk(model, train)
    single = xl.Risk(copy.deepcopy(model).float(), Examples(train.x.float(), train.y))
    tests = Examples(test.x.float(), test.y)
    options = {"curvature": curvature, "damping": damping}
    for weights in (None, torch.arange(30).double() / 10):  # both routes of the empirical Fisher matrix
        whole = risk if weights is None else risk.reweighted(weights)
        half = single if weights is None else single.reweighted(weights.float())
        want = -risk.loss_gradients(test) @ inverse(whole, curvature, damping) @ risk.loss_gradients().T
        try:
            got = xl.influence.loss_influence(half, tests, solver="low_rank", **options)
        except xl.solvers.SolverError as refused:
            assert damping < 1e-3 and refused.solution.status in ("inaccurate", "not_positive_definite")
        else:
            assert damping > 1e-6 and float((got.double() - want).norm() / want.norm()) < 1e-2
    whole = -risk.loss_gradients(test) @ inverse(risk, curvature, damping) @ risk.loss_gradients().T
    got = xl.influence.loss_influence(risk, test, solver="low_rank", **options)  # in float64 nothing is refused
    assert float((got - whole).norm() / whole.norm()) < 1e-6
