"""Woodbury through Gram matrices against the dense inverse, weights and both sides of the solve included."""

import pytest
import torch

import explainlib as xl
from explainlib.curvature import empirical_fisher, gauss_newton
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


def test_no_inverse_and_no_root():
    risk = wide_risk()
    with pytest.raises(ValueError, match="null space here, so its inverse needs l2 in the risk or damping"):
        GramInverse(risk, curvature="gauss_newton", damping=0.0)
    with pytest.raises(ValueError, match="null space here, so its inverse needs damping"):  # a ridge would not help
        GramInverse(wide_risk(l2=0.1), curvature="empirical_fisher", damping=0.0)
    with pytest.raises(ValueError, match="negative weight"):
        GramInverse(risk.reweighted(-torch.ones(12).double()), curvature="empirical_fisher", damping=1.0)
