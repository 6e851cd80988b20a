"""Damped Gauss-Newton influence has an exact meaning anywhere: it is the slope of the proximal Bregman response."""

import pytest
import torch

import explainlib as xl
from explainlib.influence.proximal import (
    ProximalBregman,
    ProximalRetraining,
    Responses,
    proximal_derivative,
    proximal_response,
    responses,
)
from explainlib.training import MinimiseError, MinimiseWarning
from tests.problems import classes, logistic_risk, normal, relative_error, targets

D = torch.float64
CHOSEN = [0, 3, 11]


def softmax_net(l2=0.01):
    """A network with softmax, far from any minimum."""
    model = xl.models.mlp([3, 5, 3], "tanh", seed=2, dtype=D)
    return xl.Risk(model, classes(24), l2=l2)


def squares_net(l2=0.0):
    """A network with squared error and two outputs, far from any minimum."""
    return xl.Risk(xl.models.mlp([4, 5, 2], "tanh", seed=3, dtype=D), targets(24, o=2), loss="squared_error", l2=l2)


def weighted_net():
    return softmax_net().reweighted(torch.linspace(0.2, 2, 24, dtype=D))


@pytest.mark.filterwarnings("ignore::explainlib.NotAtMinimumWarning")
@pytest.mark.parametrize(
    ("make", "damping"),
    [
        (softmax_net, 0.05),
        (softmax_net, 0.0),
        (squares_net, 0.2),
        (lambda: squares_net(0.1), 0.1),
        (weighted_net, 0.05),
    ],
    ids=["softmax", "softmax, ridge alone", "squares", "squares, both", "weighted"],
)
def test_damped_gauss_newton_influence_is_the_slope_of_the_response(make, damping):
    risk = make()
    assert risk.gradient().norm() > 0.05  # not a minimum
    slope = proximal_derivative(risk, CHOSEN, damping=damping)
    options = {"curvature": "gauss_newton", "damping": damping}
    for solver in ("dense", "cg", "low_rank"):
        influence = xl.influence.parameter_influence(risk, CHOSEN, solver=solver, **options)
        assert relative_error(influence, slope) < 1e-5
    hessian = xl.influence.parameter_influence(risk, CHOSEN, damping=5.0, on_failure="warn")  # another matrix
    assert relative_error(hessian, slope) > 0.1
    doubled = xl.influence.parameter_influence(risk, CHOSEN, curvature="gauss_newton", damping=damping + 0.01)
    assert relative_error(doubled, slope) > 1e-3  # the test sees a wrong damping


def test_bregman_divergences_are_kl_and_squared_distance():
    for risk, divergence in (
        (
            softmax_net(),
            lambda f, s: (s.softmax(1) * (s.log_softmax(1) - f.log_softmax(1))).sum(1),
        ),
        (squares_net(), lambda f, s: (f - s).square().sum(1)),
    ):
        there = risk.at(risk.theta + 0.1 * normal(risk.p, seed=4))
        value = ProximalBregman(risk, risk.weights_or_ones()[None], 0.3).values(there.theta[None])[0]
        proximity = (risk.l2 + 0.3) / 2 * (there.theta - risk.theta).square().sum()
        assert torch.allclose(value, divergence(there.outputs(), risk.outputs()).mean() + proximity, rtol=1e-12)


def test_the_response_at_eps_zero_is_theta_s_and_removal_is_minus_one_over_n():
    risk = softmax_net()
    still = proximal_response(risk, [4], damping=0.1, eps=0.0)
    assert torch.equal(still[0], risk.theta)
    removed = proximal_response(risk, [4], damping=0.1)
    assert torch.equal(removed, proximal_response(risk, [4], damping=0.1, eps=-1 / risk.n))
    predicted = -xl.influence.parameter_influence(risk, [4], curvature="gauss_newton", damping=0.1) / risk.n
    assert 1e-4 < relative_error(removed - risk.theta, predicted) < 0.3  # the linearisation's own error
    assert torch.equal(
        proximal_response(risk, damping=0.1)[4], proximal_response(risk, list(range(24)), damping=0.1)[4]
    )


def test_the_gradient_of_the_response_vanishes():
    risk, weights = softmax_net(), torch.ones(1, 24, dtype=D)
    weights[0, 5] = 0
    for kind in (ProximalBregman, ProximalRetraining):
        solved = responses(kind(risk, weights, 0.2))
        assert solved.status == ("converged",)
        assert kind(risk, weights, 0.2).gradients(solved.theta).norm() < 1e-10


def test_at_a_minimum_response_and_proximal_retraining_are_one():
    """The divergences differ from the losses by the risk's own slope at theta_s; a minimum has none."""
    risk = logistic_risk()
    weights = torch.ones(2, risk.n, dtype=D)
    weights[0, 3] = weights[1, 8] = 0
    bregman, plain = (responses(kind(risk, weights, 0.1)).theta for kind in (ProximalBregman, ProximalRetraining))
    assert relative_error(bregman - risk.theta, plain - risk.theta) < 1e-9
    away = risk.at(risk.theta + 0.3 * normal(risk.p, seed=2))
    bregman, plain = (responses(kind(away, weights, 0.1)).theta for kind in (ProximalBregman, ProximalRetraining))
    assert relative_error(bregman - away.theta, plain - away.theta) > 0.5


def test_float32_is_solved_to_its_own_rounding():
    risk = softmax_net()
    coarse = xl.Risk(risk.model.float(), risk.train.to(torch.float32), l2=risk.l2)
    weights = torch.ones(2, 24)
    weights[0, 3] = weights[1, 8] = 0
    found = responses(ProximalBregman(coarse, weights, 0.1))
    assert found.status == ("converged",) * 2 and float(found.gradient_norm.max()) <= 1e-5
    want = proximal_response(risk, [3, 8], damping=0.1)
    assert (
        relative_error(proximal_response(coarse, [3, 8], damping=0.1).double() - risk.theta, want - risk.theta) < 1e-2
    )


@pytest.mark.parametrize(("dtype", "remedy"), [(D, "larger tolerance"), (torch.float32, "or use float64")])
def test_a_response_that_is_not_solved_may_be_returned(dtype, remedy, monkeypatch):
    base = softmax_net()
    risk = xl.Risk(base.model.to(dtype), base.train.to(dtype), l2=base.l2)
    ended = Responses(risk.theta.repeat(2, 1), ("converged", "max_steps"), torch.tensor([0.0, 0.5], dtype=dtype))
    monkeypatch.setattr("explainlib.influence.proximal.responses", lambda problems, tolerance: ended)
    said = rf"1 of 2 responses are not solved: max_steps, \|gradient\| = 5.0e-01.*{remedy}\.$"
    with pytest.warns(MinimiseWarning, match=said):
        assert proximal_response(risk, [0, 1], damping=0.1, on_failure="warn") is ended.theta
    with pytest.raises(MinimiseError, match=said):
        proximal_response(risk, [0, 1], damping=0.1)


def test_bad_input():
    risk = squares_net()
    with pytest.raises(ValueError, match="damping=0 without a ridge"):
        proximal_response(risk, [0], damping=0.0)
    with pytest.raises(ValueError, match="damping=-1"):
        proximal_response(risk, [0], damping=-1.0)
    with pytest.raises(ValueError, match="index 99"):
        proximal_derivative(risk, [99], damping=0.1)
    single = xl.Risk(xl.models.mlp([3, 4, 3]), xl.datasets.Examples(normal(6, 3).float(), torch.arange(6) % 3))
    with pytest.raises(TypeError, match="float64"):
        proximal_derivative(single, [0], damping=0.1)
    with pytest.raises(MinimiseError, match="not solved.*eps nearer to 0"):
        proximal_response(risk, [0], damping=1e-3, eps=-5.0)  # minus five squares: no lower end
