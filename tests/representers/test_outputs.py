"""Vectors of outputs and single logits: kernels between outputs, and every representer of a binary classifier."""

import pytest
import torch
from torch.func import jacrev

import explainlib as xl
from explainlib.curvature import gauss_newton, hessian
from explainlib.datasets import Examples
from explainlib.influence import loss_influence, tracin
from explainlib.representers import (
    descent_importance,
    kernel,
    representer_points,
    representer_scores,
    surrogate_importance,
    surrogate_points,
    target_importance,
    tracking_importance,
)
from tests.problems import classes, logistic_risk, network_risk, normal, relative_error

D = torch.float64


def rows(risk, x):
    """Return d outputs / d theta [n, C, p]."""
    return jacrev(lambda theta: risk.parameters.outputs(theta, x))(risk.theta)


def test_the_kernel_between_outputs_is_the_product_of_jacobians():
    risk, test = network_risk(n=9), classes(5, seed=9)
    want = torch.einsum("tcp,ndp->tncd", rows(risk, test.x), rows(risk, risk.train.x))
    cross = kernel(risk.model, test.x, risk.train.x, output="cross")
    assert cross.shape == (5, 9, 3, 3) and relative_error(cross, want) < 1e-10
    each = kernel(risk.model, test.x, risk.train.x, output="each")
    assert relative_error(cross.diagonal(dim1=2, dim2=3), each) < 1e-12
    same = kernel(risk.model, test.x, test.x, output="cross")
    assert relative_error(same, same.permute(1, 0, 3, 2)) < 1e-12
    last = kernel(risk.model, test.x, risk.train.x, kind="last_layer", output="cross")
    only = kernel(risk.model, test.x, risk.train.x, kind="last_layer")
    assert torch.equal(last, only[..., None, None] * torch.eye(3, dtype=D))
    readout = kernel(risk.model, test.x, risk.train.x, parameters="last", output="cross")
    assert relative_error(last, readout) < 1e-10


@pytest.mark.parametrize("hidden", [4, 30])  # dense, and through Gram matrices
def test_the_influence_kernel_between_outputs(hidden):
    model = xl.models.mlp([3, hidden, 3], "tanh", seed=1, dtype=D)
    risk, test = xl.Risk(model, classes(9), l2=0.1), classes(5, seed=9)
    matrix = gauss_newton(risk) + 0.2 * torch.eye(risk.p, dtype=D)
    right = rows(risk, risk.train.x)
    solved = torch.linalg.solve(matrix, right.flatten(0, 1).T).T.unflatten(0, right.shape[:2])
    want = torch.einsum("tcp,ndp->tncd", rows(risk, test.x), solved)
    got = kernel(model, test.x, risk.train.x, kind="influence", risk=risk, damping=0.2, output="cross")
    assert relative_error(got, want) < 1e-8


def test_with_it_influence_on_an_output_is_a_representer():
    """Tsai et al. 2023, eq. (16), of a classifier with three outputs: exact, where one kernel an output is not."""
    risk, test = logistic_risk(20), classes(5, seed=9)
    near = {
        o: kernel(risk.model, test.x, risk.train.x, kind="influence", risk=risk, curvature="hessian", output=o)
        for o in ("cross", "each")
    }
    want = loss_influence(risk, test, measure="output", output=1)
    scores = {o: representer_scores(target_importance(risk), k, output=1) for o, k in near.items()}
    assert relative_error(scores["cross"], want) < 1e-9 and relative_error(scores["each"], want) > 0.05
    assert relative_error(hessian(risk), hessian(risk).T) < 1e-12


def test_with_it_tracin_on_an_output_is_a_sum_of_representers():
    """Eq. (14) of a network with three outputs, checkpoint by checkpoint."""
    train, test, model = classes(9), classes(5, seed=9), xl.models.mlp([3, 4, 3], "tanh", dtype=D)
    run = xl.training.fit(model, train, epochs=6, lr=0.1, optimizer="sgd", checkpoints=3)
    risk, want = xl.Risk(model, train), torch.zeros(5, 9, dtype=D)
    for theta, rate in zip(run.checkpoints, run.learning_rates, strict=True):
        at = risk.at(theta)
        near = kernel(at.model, test.x, train.x, output="cross")
        want += rate * representer_scores(target_importance(at), near, output=2)
    assert relative_error(tracin(run, train, test, measure="output", output=2), want) < 1e-9


def test_one_small_step_moves_every_output_by_the_sum():
    """f_1 - f_0 = sum_i alpha_i K with the kernels between outputs, up to the square of the rate."""
    train, test, model = classes(9), classes(5, seed=9), xl.models.mlp([3, 4, 3], "tanh", dtype=D)
    errors = []
    for lr in (1e-2, 1e-3, 1e-4):
        run = xl.training.fit(model, train, epochs=1, lr=lr, optimizer="sgd", record=True)
        near = kernel(model, test.x, train.x, output="cross")
        told = torch.stack([representer_scores(tracking_importance(run), near, output=c).sum(1) for c in range(3)], 1)
        errors.append(relative_error(told, (run.model(test.x) - model(test.x)).detach()))
    assert errors[0] < 0.05 and errors[0] > 8 * errors[1] > 64 * errors[2]


def binary(l2=0.1, n=20):
    """A logistic regression of one output at its minimum, and tests."""
    train = Examples(classes(n, C=2).x, torch.arange(n) % 2)
    risk = xl.Risk(torch.nn.Linear(3, 1, dtype=D), train, loss="binary_cross_entropy", l2=l2)
    return xl.training.minimise(risk, tolerance=1e-13), Examples(normal(5, 3, seed=9), torch.arange(5) % 2)


def test_the_importances_of_one_logit():
    """Target: y - sigmoid(f); at the minimum its representer points sum to the output (Yeh et al. 2018)."""
    risk, test = binary()
    want = risk.train.y[:, None] - risk.outputs().sigmoid()
    assert relative_error(target_importance(risk), want) < 1e-12
    points = representer_points(risk, test, output=0)
    assert relative_error(points.sum(1), risk.outputs(test)[:, 0]) < 1e-9
    gram = risk.train.x @ risk.train.x.T + 1
    alpha = surrogate_importance(gram, risk.outputs(), loss="cross_entropy", l2=0.1)
    expected = representer_scores(alpha, test.x @ risk.train.x.T + 1, output=0)
    assert relative_error(surrogate_points(risk, test, output=0), expected) < 1e-9


def test_one_logit_is_two_with_a_contrast():
    """The logit f of one output and [-f/2, f/2] of two: the same minimum under twice the ridge, the same influence."""
    risk, test = binary()
    theta = risk.theta  # weight [3], bias
    two = xl.Risk(xl.models.logistic(3, 2, dtype=D), risk.train, l2=2 * risk.l2)
    two = xl.training.minimise(two, tolerance=1e-13)
    outputs = two.outputs(test)
    assert relative_error((outputs[:, 1] - outputs[:, 0])[:, None], risk.outputs(test)) < 1e-9
    assert theta.shape == (4,)
    assert (
        relative_error(loss_influence(two, test, measure="margin"), loss_influence(risk, test, measure="margin")) < 1e-8
    )
    assert relative_error(loss_influence(two, test), loss_influence(risk, test)) < 1e-8


@pytest.mark.parametrize("batch_size", [None, 6])
def test_tracking_of_one_logit_adds_up(batch_size):
    risk, test = binary()
    model = torch.nn.Linear(3, 1, dtype=D)
    how = {"epochs": 9, "lr": 0.1, "optimizer": "sgd", "record": True, "batch_size": batch_size}
    run = xl.training.fit(model, risk.train, loss="binary_cross_entropy", **how)
    scores = representer_scores(tracking_importance(run), test.x @ risk.train.x.T + 1, output=0)
    assert relative_error(scores.sum(1), (run.model(test.x) - model(test.x)).detach()[:, 0]) < 1e-10


def test_descent_of_one_logit_follows_sigmoids():
    """One step from 0: rate/n (sigmoid(target) - 1/2)."""
    risk, _ = binary()
    gram = risk.train.x @ risk.train.x.T + 1
    alpha = descent_importance(gram, risk.outputs(), loss="cross_entropy", lr=0.1, epochs=1)
    assert relative_error(alpha, 0.1 / 20 * (risk.outputs().sigmoid() - 0.5)) < 1e-12


def test_curvatures_of_one_logit():
    risk, _ = binary()
    assert relative_error(gauss_newton(risk), hessian(risk)) < 1e-12  # outputs linear in the parameters
    exact = loss_influence(risk, risk.train)
    for options in (
        {"curvature": "gauss_newton"},
        {"solver": "cg"},
        {"curvature": "gauss_newton", "solver": "low_rank"},
    ):
        assert relative_error(loss_influence(risk, risk.train, **options), exact) < 1e-7
    by_layers = loss_influence(risk, risk.train, curvature="ekfac", damping=1e-3)
    assert torch.corrcoef(torch.stack([by_layers.flatten(), exact.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: representer_scores(torch.ones(4, 2), torch.ones(3, 4, 2, 2), output=2), "outputs 0 to 1"),
        (lambda: kernel(torch.nn.Linear(3, 2), torch.ones(2, 3), torch.ones(2, 3), output="both"), "'cross'"),
        (lambda: xl.Risk(torch.nn.Linear(3, 2, dtype=D), classes(6, C=2), loss="binary_cross_entropy"), "the model has 2"),
        (lambda: xl.Risk(torch.nn.Linear(3, 1, dtype=D), classes(6, C=2)), "pass loss='binary_cross_entropy'"),
    ],
)  # fmt: skip
def test_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_a_users_function_of_a_known_name_is_no_known_loss():
    def cross_entropy(f, y):
        return (f[:, 0] - y).square()

    risk = xl.Risk(torch.nn.Linear(3, 1, dtype=D), classes(6, C=2), loss=cross_entropy, l2=0.1)
    with pytest.raises(ValueError, match="the function 'cross_entropy'; use representer_points"):
        surrogate_points(risk, classes(2, C=2), output=0)
