"""Kernels, importances and scores against their definitions, written out with Jacobians."""

import math

import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.func import functional_call, jacrev
from torch.utils._python_dispatch import TorchDispatchMode

from explainlib import NotAtMinimumWarning, Risk
from explainlib.curvature import empirical_fisher, gauss_newton, hessian
from explainlib.datasets import Examples
from explainlib.influence import loss_influence, tracin
from explainlib.models import logistic, mlp
from explainlib.representers import (
    kernel,
    representer_scores,
    surrogate_importance,
    target_importance,
    tracking_importance,
)
from explainlib.representers.importance import probabilities
from explainlib.solvers import SolverError
from explainlib.training import Trajectory, fit, minimise
from tests.problems import normal, relative_error

D = torch.float64
G = torch.Generator().manual_seed(0)
TRAIN = Examples(torch.randn(9, 4, generator=G, dtype=D), torch.arange(9) % 3)
TEST = Examples(torch.randn(5, 4, generator=G, dtype=D), torch.arange(5) % 3)


def net():
    return mlp([4, 6, 3], "tanh", seed=3, dtype=D)


def jacobian(model, x):
    """d outputs / d parameters [n, C, p], one example at a time."""
    named = {name: p.detach() for name, p in model.named_parameters()}

    def one(example):
        found = jacrev(lambda parts: functional_call(model, parts, (example[None],))[0])(named)
        return torch.cat([found[name].flatten(1) for name in named], dim=1)

    return torch.stack([one(example) for example in x])


def test_ntk_is_the_product_of_jacobians():
    model = net()
    each = torch.einsum("tcp,ncp->tnc", jacobian(model, TEST.x), jacobian(model, TRAIN.x))
    torch.testing.assert_close(kernel(model, TEST.x, TRAIN.x, output="each"), each, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(kernel(model, TEST.x, TRAIN.x, output=1), each[..., 1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(kernel(model, TEST.x, TRAIN.x), each.sum(-1), rtol=1e-10, atol=1e-12)


def test_last_layer_is_the_products_of_its_features():
    model = net()
    phi = {
        name: torch.cat([torch.tanh(model[1](e.x)), torch.ones(len(e), 1, dtype=D)], 1).detach()
        for name, e in (("z", TRAIN), ("x", TEST))
    }
    expected = phi["x"] @ phi["z"].T
    torch.testing.assert_close(kernel(model, TEST.x, TRAIN.x, kind="last_layer"), expected)
    assert kernel(model, TEST.x, TRAIN.x, kind="last_layer", output="each").shape == (5, 9, 3)
    only = kernel(model, TEST.x, TRAIN.x, kind="last_layer", output=2)
    torch.testing.assert_close(only, expected)


@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher"])
def test_influence_kernel_has_the_inverse_curvature_between(curvature):
    model = net()
    risk = Risk(model, TRAIN, l2=0.3)
    matrix = {"hessian": hessian, "gauss_newton": gauss_newton, "empirical_fisher": empirical_fisher}[curvature](risk)
    matrix = matrix + 0.5 * torch.eye(risk.p, dtype=D)
    left, right = jacobian(model, TEST.x), jacobian(model, TRAIN.x)
    solved = torch.linalg.solve(matrix, right.flatten(0, 1).T).T.unflatten(0, right.shape[:2])
    each = torch.einsum("tcp,ncp->tnc", left, solved)
    found = kernel(model, TEST.x, TRAIN.x, kind="influence", risk=risk, curvature=curvature, damping=0.5, output="each")
    torch.testing.assert_close(found, each, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher"])
def test_woodbury_through_grams_is_the_dense_inverse(curvature):
    """More parameters than rows: nothing of length p is ever solved for."""
    model = mlp([4, 40, 3], "tanh", seed=1, dtype=D)
    risk = Risk(model, TRAIN, l2=0.1)
    assert risk.p > risk.n * risk.n_outputs
    matrix = {"gauss_newton": gauss_newton, "empirical_fisher": empirical_fisher}[curvature](risk)
    matrix = matrix + 0.2 * torch.eye(risk.p, dtype=D)
    left, right = jacobian(model, TEST.x)[:, 1], jacobian(model, TRAIN.x)[:, 1]
    expected = left @ torch.linalg.solve(matrix, right.T)
    found = kernel(model, TEST.x, TRAIN.x, kind="influence", risk=risk, curvature=curvature, damping=0.2, output=1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match="null space here, so its inverse needs"):
        kernel(model, TEST.x, TRAIN.x, kind="influence", risk=Risk(model, TRAIN), curvature=curvature)


def test_target_importance_and_influence_kernel_are_the_influence_function():
    """Eq. (16): summed over outputs with the test's own slope, it is Koh and Liang's influence."""
    risk = minimise(Risk(logistic(4, 3, dtype=D), TRAIN, l2=0.2))
    left, right = jacobian(risk.model, TEST.x), jacobian(risk.model, TRAIN.x)
    cross = torch.einsum(
        "tcp,ndp->tncd", left, torch.linalg.solve(hessian(risk), right.flatten(0, 1).T).T.unflatten(0, (9, 3))
    )
    slope = risk.loss.gradient(risk.outputs(TEST), TEST.y)
    predicted = torch.einsum("tc,tncd,nd->tn", slope, cross, target_importance(risk))
    torch.testing.assert_close(predicted, loss_influence(risk, TEST), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        kernel(risk.model, TEST.x, TRAIN.x, kind="influence", risk=risk, curvature="hessian", output="each"),
        torch.einsum("tncc->tnc", cross),
        rtol=1e-9,
        atol=1e-11,
    )


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_tracking_adds_up_to_what_training_changed(batch_size, loss):
    """The law of a linear model without l2: f(T) - f(0) = sum_i alpha_i K(x_i, x), at any batch size."""
    model = logistic(4, 3, dtype=D)
    train = TRAIN if loss == "cross_entropy" else Examples(TRAIN.x, torch.randn(9, 3, generator=G, dtype=D))
    options = {"epochs": 7, "lr": 0.05, "optimizer": "sgd", "loss": loss, "batch_size": batch_size, "record": True}
    trained = fit(model, train, **options)
    alpha = tracking_importance(trained)
    change = (trained.model(TEST.x) - model(TEST.x)).detach()
    explained = kernel(model, TEST.x, TRAIN.x, kind="last_layer") @ alpha
    torch.testing.assert_close(explained, change, rtol=1e-10, atol=1e-12)
    shrunk = fit(model, train, weight_decay=0.5, **options)
    missed = kernel(model, TEST.x, TRAIN.x, kind="last_layer") @ shrunk.importance - (
        shrunk.model(TEST.x) - model(TEST.x)
    )
    assert missed.norm() > 0.01 * change.norm(), "with l2 the law must fail"


def test_only_plain_descent_can_be_tracked():
    for options in ({"optimizer": "adam"}, {"optimizer": "sgd", "swa": 1}):
        with pytest.raises(ValueError, match="plain gradient descent"):
            fit(logistic(4, 3, dtype=D), TRAIN, epochs=3, record=True, **options)
    with pytest.raises(ValueError, match="record=True"):
        tracking_importance(fit(logistic(4, 3, dtype=D), TRAIN, epochs=1))


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_surrogate_is_optimal(loss):
    """Proposition 8, and no small change of alpha lowers the regression's objective, eq. (5)."""
    model = net()
    gram, f = kernel(model, TRAIN.x, TRAIN.x), model(TRAIN.x).detach()
    alpha = surrogate_importance(gram, f, loss=loss, l2=0.05)

    def objective(a):
        fhat = gram @ a
        parts = (
            -(f.softmax(-1) * fhat.log_softmax(-1)).sum(-1) if loss == "cross_entropy" else (fhat - f).square().sum(-1)
        )
        return parts.mean() + 0.05 / 2 * (a * fhat).sum()

    slope = torch.func.grad(objective)(alpha)
    assert slope.norm() < 1e-8
    fhat = gram @ alpha
    derivative = fhat.softmax(-1) - f.softmax(-1) if loss == "cross_entropy" else 2 * (fhat - f)
    torch.testing.assert_close(alpha, -derivative / (9 * 0.05), rtol=1e-6, atol=1e-8)
    for seed in range(3):
        step = 1e-3 * torch.randn(9, 3, generator=torch.Generator().manual_seed(seed), dtype=D)
        assert objective(alpha + step) >= objective(alpha)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("rank", [6, 60])
def test_the_surrogate_satisfies_its_equation(outputs, l2, rank):
    """Eq. (6), and the same alpha from steps that solve dense equations, also where K has a null space."""
    root, f = normal(60, rank, seed=1), 3 * normal(60, outputs, seed=2)
    gram, ridge = root @ root.T, 60 * l2
    alpha = surrogate_importance(gram, f, loss="cross_entropy", l2=l2, tolerance=1e-11)
    wanted = probabilities(f)
    assert (alpha + (probabilities(gram @ alpha) - wanted) / ridge).norm() < 1e-10 * alpha.norm()
    dense = alpha + 1e-4 * normal(60, outputs, seed=3)
    for _ in range(30):
        s = probabilities(gram @ dense)
        curved = torch.diag_embed(s) - s[:, :, None] * s[:, None]
        system = torch.einsum("nce,nm->ncme", curved, gram).reshape(60 * outputs, -1) / ridge + torch.eye(60 * outputs)
        dense = dense - torch.linalg.solve(system, (dense + (s - wanted) / ridge).flatten()).view_as(dense)
    assert relative_error(alpha, dense) < 1e-9


def test_the_surrogate_forms_nothing_of_all_examples_and_outputs(monkeypatch):
    """400 examples of 10 outputs: a matrix of 4,000 x 4,000 would be 128 MB, and nothing is larger than K."""
    root, sizes = normal(400, 20, seed=1), []
    gram = root @ root.T

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in (out if isinstance(out, tuple | list) else [out]) if isinstance(part, torch.Tensor))  # fmt: skip
            return out

    with Sizes():
        surrogate_importance(gram, 3 * normal(400, 10, seed=2), loss="cross_entropy", l2=1e-3)
    assert 10_000 < max(sizes) <= 400 * 400


def test_one_output_is_a_logistic_regression():
    """Against two outputs [f, 0] under twice the ridge, and by bisection for one point.

    softmax([f, 0])_0 is sigmoid(f), and the two columns of alpha are opposite: their difference d has f_0 - f_1 = K d
    and d/2 = -(sigmoid(K d) - sigmoid(f))/(n l2), eq. (6) of one output with half that l2.
    """
    root = normal(12, 4, seed=1)
    gram, f = root @ root.T, 2 * normal(12, 1, seed=2)
    one = surrogate_importance(gram, f, loss="cross_entropy", l2=0.05)
    assert one.shape == (12, 1) and one.abs().min() > 1e-8
    residual = one + ((gram @ one).sigmoid() - f.sigmoid()) / (12 * 0.05)  # eq. (6)
    assert residual.abs().max() < 1e-8
    two = surrogate_importance(gram, torch.cat([f, 0 * f], 1), loss="cross_entropy", l2=0.1)
    assert relative_error(two[:, :1] - two[:, 1:], one) < 1e-6
    far = surrogate_importance(gram, 40 + f.abs(), loss="cross_entropy", l2=0.05)  # as sure as float64 can be
    assert (far > 0).all() and torch.isfinite(far).all()
    k, wanted, l2 = 2.0, 0.9, 0.3  # one point: a = -(sigmoid(2 a) - .9)/.3
    by_bisection = brentq(lambda a: a + (1 / (1 + math.exp(-k * a)) - wanted) / l2, -10, 10)
    logit = torch.tensor([[math.log(wanted / (1 - wanted))]], dtype=torch.float64)
    alone = surrogate_importance(torch.tensor([[k]], dtype=torch.float64), logit, loss="cross_entropy", l2=l2)
    assert float(alone) == pytest.approx(by_bisection, abs=1e-8)


@pytest.mark.parametrize("widths", [[4, 5, 3], [4, 2, 3]])  # through Gram matrices, and dense
def test_the_ridge_is_in_two_of_three_curvatures(widths):
    """H made by hand: the sum over examples of what each curvature is, with l2 where the formula has it."""
    risk = Risk(mlp(widths, "tanh", seed=1, dtype=D), TRAIN, l2=0.3)

    def rows(x):
        run = lambda theta: risk.parameters.outputs(theta, x)  # noqa: E731
        return jacrev(run)(risk.theta)  # [n, C, p]

    jacobian, outputs = rows(TRAIN.x), risk.outputs()
    slope = outputs.softmax(1) - torch.nn.functional.one_hot(TRAIN.y, 3)
    bend = torch.diag_embed(outputs.softmax(1)) - outputs.softmax(1)[:, :, None] * outputs.softmax(1)[:, None]
    losses = torch.einsum("nc,ncp->np", slope, jacobian)
    eye, damping = torch.eye(risk.p, dtype=D), 0.05
    by_hand = {
        "gauss_newton": torch.einsum("ncp,nce,neq->pq", jacobian, bend, jacobian) / 9 + 0.3 * eye,
        "empirical_fisher": losses.T @ losses / 9,
    }
    for curvature, matrix in by_hand.items():
        got = kernel(
            risk.model, TEST.x, TRAIN.x, kind="influence", output=1, risk=risk, curvature=curvature, damping=damping
        )
        want = rows(TEST.x)[:, 1] @ torch.linalg.solve(matrix + damping * eye, jacobian[:, 1].T)
        assert relative_error(got, want) < 1e-9
    with pytest.raises((ValueError, SolverError), match="damping"):
        kernel(risk.model, TEST.x, TRAIN.x, kind="influence", risk=risk, curvature="empirical_fisher")


def test_representer_points_are_the_last_layer_surrogate():
    """Corollary 12: at the minimum of a ridge regression on the last layer, its target derivatives are the surrogate's."""
    risk = minimise(Risk(logistic(4, 3, dtype=D), TRAIN, l2=0.1))
    points = target_importance(risk) / (9 * 0.1)
    scores = kernel(risk.model, TEST.x, TRAIN.x, kind="last_layer") @ points
    torch.testing.assert_close(scores, risk.outputs(TEST), rtol=1e-7, atol=1e-8)  # efficiency, exactly


def test_tracin_sums_over_checkpoints():
    model = net()
    trajectory = fit(model, TRAIN, epochs=6, lr=0.1, optimizer="sgd", checkpoints=3)
    expected = torch.zeros(5, 9, dtype=D)
    risk = Risk(model, TRAIN)
    for theta, rate in zip(trajectory.checkpoints, trajectory.learning_rates, strict=True):
        at = risk.at(theta)
        expected -= rate * at.loss_gradients(TEST) @ at.loss_gradients().T
    torch.testing.assert_close(tracin(trajectory, TRAIN, TEST), expected, rtol=1e-10, atol=1e-12)
    last = sum(
        -rate
        * Risk(risk.at(theta).model, TRAIN, parameters="last").loss_gradients(TEST)
        @ Risk(risk.at(theta).model, TRAIN, parameters="last").loss_gradients().T
        for theta, rate in zip(trajectory.checkpoints, trajectory.learning_rates, strict=True)
    )
    torch.testing.assert_close(tracin(trajectory, TRAIN, TEST, parameters="last"), last, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="no checkpoints"):
        tracin(fit(model, TRAIN, epochs=1), TRAIN, TEST)
    with pytest.raises(ValueError, match="for this model"):
        Trajectory(logistic(4, 3, dtype=D), trajectory.checkpoints, trajectory.learning_rates)


def test_scores_are_global_times_local():
    alpha, k = torch.randn(9, 3, generator=G, dtype=D), torch.randn(5, 9, 3, generator=G, dtype=D)
    torch.testing.assert_close(representer_scores(alpha, k, output=2), alpha[:, 2] * k[..., 2])
    torch.testing.assert_close(representer_scores(alpha, k[..., 0], output=2), alpha[:, 2] * k[..., 0])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kernel(net(), TEST.x, TRAIN.x, kind="rbf"), "'rbf'"),
        (lambda: kernel(net(), TEST.x, TRAIN.x, output=3), "outputs 0 to 2"),
        (lambda: kernel(net(), TEST.x, TRAIN.x, output="all"), "'each'"),
        (lambda: kernel(net(), TEST.x, TRAIN.x, kind="influence"), "needs risk="),
        (lambda: kernel(net(), TEST.x, TRAIN.x, risk=Risk(net(), TRAIN)), "other kinds take none"),
        (lambda: kernel(nn.Tanh(), TEST.x, TRAIN.x, kind="last_layer"), "nn.Linear"),
        (lambda: surrogate_importance(torch.eye(3), torch.ones(3, 1), loss="squared_error", l2=0.0), "l2=0.0"),
        (lambda: surrogate_importance(-torch.eye(3), torch.ones(3, 1), loss="squared_error", l2=1.0), "no kernel"),
        (lambda: surrogate_importance(torch.ones(3, 3).triu(), torch.ones(3, 1), loss="squared_error", l2=1.0), "symmetric"),
        (lambda: representer_scores(torch.ones(4, 2), torch.ones(3, 4), output=2), "outputs 0 to 1"),
    ],
)  # fmt: skip
def test_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_no_minimum_is_asked_for(recwarn):
    target_importance(Risk(net(), TRAIN))
    kernel(net(), TEST.x, TRAIN.x, kind="influence", risk=Risk(net(), TRAIN, l2=0.1))
    assert not [w for w in recwarn if issubclass(w.category, NotAtMinimumWarning)]
