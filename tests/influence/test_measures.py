"""Influence on outputs, margins and callables: autograd on small models, problems solved again, and retraining."""

import importlib

import pytest
import torch
from torch.func import grad

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.influence import loss_influence, tracin
from tests.problems import (
    classes,
    dense_gauss_newton,
    dense_hessian,
    derivatives,
    general,
    logistic_risk,
    loop_gradients,
    network_risk,
    normal,
    relative_error,
    resolved,
    ridge_risk,
    targets,
)

D = torch.float64
tracin_room = importlib.import_module("explainlib.influence.tracin")


def largest_gap(f, y):
    """The label's output minus the largest other."""
    own = torch.nn.functional.one_hot(y, f.shape[1]).bool()
    return (f * own).sum(1) - f.masked_fill(own, -torch.inf).amax(1)


def log_odds(f, y):
    p = f.softmax(1)[torch.arange(len(y)), y]
    return torch.log(p / (1 - p))


MEASURES = {
    "one output": ({"measure": "output", "output": 2}, lambda f, y: f[:, 2]),
    "the label's": ({"measure": "output"}, lambda f, y: f[torch.arange(len(y)), y]),
    "margin": ({"measure": "margin"}, log_odds),
    "callable": ({"measure": largest_gap}, largest_gap),
}
each_measure = pytest.mark.parametrize(("options", "m"), MEASURES.values(), ids=MEASURES)


def measured_gradients(risk, test, m):
    """Return grad m of every test, one at a time, by autograd."""
    one = lambda theta, i: m(risk.parameters.outputs(theta, test.x[i : i + 1]), test.y[i : i + 1])[0]  # noqa: E731
    return torch.stack([grad(one)(risk.theta, i) for i in range(len(test))])


@each_measure
@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk())], ids=["head", "general"])
def test_dense_autograd(make, options, m):
    risk, test = make(), classes(6, seed=9)
    want = -measured_gradients(risk, test, m) @ torch.linalg.solve(
        dense_hessian(risk), loop_gradients(risk, risk.train).T
    )
    assert relative_error(loss_influence(risk, test, **options), want) < 1e-9


@each_measure
@pytest.mark.parametrize("solver", ["dense", "cg", "low_rank"])
def test_by_every_way_of_solving(solver, options, m):
    """The Gram route of the low rank, the dense one, and one of products."""
    risk, test = network_risk(n=6), classes(5, seed=9)
    matrix = dense_gauss_newton(risk) + 0.2 * torch.eye(risk.p, dtype=D)
    want = -measured_gradients(risk, test, m) @ torch.linalg.solve(matrix, loop_gradients(risk, risk.train).T)
    got = loss_influence(risk, test, curvature="gauss_newton", solver=solver, damping=0.2, **options)
    assert relative_error(got, want) < 1e-7


@each_measure
@pytest.mark.parametrize(
    "options_of_fisher", [{"curvature": "empirical_fisher", "solver": "low_rank"}, {"curvature": "ekfac"}]
)
def test_the_ways_without_materialised_gradients(options_of_fisher, options, m):
    risk, test = network_risk(n=6), classes(5, seed=9)
    inverse = xl.solvers.inverse_curvature(risk, damping=0.2, **options_of_fisher)
    want = -measured_gradients(risk, test, m) @ inverse(risk.loss_gradients()).value.T
    assert relative_error(loss_influence(risk, test, damping=0.2, **options_of_fisher, **options), want) < 1e-8


@each_measure
def test_the_derivative_of_the_problem_solved_again(options, m):
    """eps multiplies l_j: the weight of example j is 1 + n eps."""
    risk, test, j = logistic_risk(), classes(6, seed=9), 7

    def measured(eps):
        weights = torch.ones(risk.n, dtype=D)
        weights[j] += risk.n * eps
        return m(risk.at(resolved(risk, weights)).outputs(test), test.y)

    want, _ = derivatives(measured, step=1e-3)
    assert relative_error(loss_influence(risk, test, **options)[:, j], want) < 1e-6


@each_measure
def test_removal_is_minus_one_over_n_of_it(options, m):
    """Retrained without each example, all other weights kept: the change of the measure."""
    risk, test = logistic_risk(n=120, l2=0.1), classes(6, seed=9)
    gone = xl.retraining.leave_out(risk, [[i] for i in range(0, 120, 6)], weighting="plain")
    true = torch.stack(
        [m(risk.at(theta).outputs(test), test.y) - m(risk.outputs(test), test.y) for theta in gone.theta], 1
    )
    predicted = -loss_influence(risk, test, **options)[:, ::6] / risk.n
    found = xl.metrics.fidelity(predicted, true)
    assert found.pearson > 0.995 and 0.9 < found.slope < 1.1


def test_removal_moves_a_ridge_regression_by_it():
    """Leverage h: retraining moves the output by -influence/n / (1 - h), h = g_j^T H^-1 g_j 2/n; exact."""
    risk, test = ridge_risk(30), targets(4, seed=8)
    gone = xl.retraining.leave_out(risk, [[i] for i in range(30)], weighting="plain")
    true = torch.stack([(risk.at(theta).outputs(test) - risk.outputs(test))[:, 0] for theta in gone.theta], 1)
    features = torch.cat([risk.train.x, torch.ones(30, 1, dtype=D)], 1)
    h = 2 / 30 * (features * torch.linalg.solve(dense_hessian(risk), features.T).T).sum(1)
    predicted = -loss_influence(risk, test, measure="output") / 30 / (1 - h)
    assert relative_error(predicted, true) < 1e-8


def test_an_example_raises_the_output_and_the_margin_of_its_own_label():
    risk = logistic_risk()
    for measure in ("output", "margin"):
        assert (loss_influence(risk, risk.train, measure=measure).diagonal() >= 0).all()
    assert (loss_influence(risk, risk.train).diagonal() <= 0).all()


def test_the_loss_is_the_default_and_its_chain_rule_holds():
    """Cross-entropy is log(1 + exp(-margin)): its derivative in the margin is -(1 - p)."""
    risk, test = logistic_risk(), classes(6, seed=9)
    assert torch.equal(loss_influence(risk, test), loss_influence(risk, test, measure="loss"))
    p = (-risk.losses(test)).exp()
    want = -(1 - p)[:, None] * loss_influence(risk, test, measure="margin")
    assert relative_error(loss_influence(risk, test), want) < 1e-9
    callable_loss = lambda f, y: -f.log_softmax(1)[torch.arange(len(y)), y]  # noqa: E731
    assert relative_error(loss_influence(risk, test, measure=callable_loss), loss_influence(risk, test)) < 1e-9


@each_measure
def test_tracin_is_the_sum_of_gradient_products(options, m):
    train, test, model = classes(9), classes(5, seed=4), xl.models.mlp([3, 4, 3], "tanh", dtype=D)
    run = xl.training.fit(model, train, epochs=6, lr=0.1, optimizer="sgd", checkpoints=3)
    risk, want = xl.Risk(model, train), torch.zeros(5, 9, dtype=D)
    for theta, rate in zip(run.checkpoints, run.learning_rates, strict=True):
        at = risk.at(theta)
        want -= rate * measured_gradients(at, test, m) @ loop_gradients(at, train).T
    assert relative_error(tracin(run, train, test, **options), want) < 1e-9
    same = tracin(run, train, train, **options)
    assert relative_error(same, tracin(run, train, Examples(train.x.clone(), train.y), **options)) < 1e-12


def test_tracin_by_parts_of_the_training_set_is_tracin_whole(monkeypatch):
    train, test, model = classes(9), classes(5, seed=4), xl.models.mlp([3, 4, 3], "tanh", dtype=D)
    run = xl.training.fit(model, train, epochs=6, lr=0.1, optimizer="sgd", checkpoints=3)
    whole, seen = tracin(run, train, test), []
    made = tracin_room.measure_gradients
    monkeypatch.setattr(tracin_room, "RECORDED", 0)
    monkeypatch.setattr(tracin_room, "LEAST", 4)
    counted = lambda p, at, part, *rest, **options: seen.append(len(part)) or made(p, at, part, *rest, **options)  # noqa: E731
    monkeypatch.setattr(tracin_room, "measure_gradients", counted)
    assert relative_error(tracin(run, train, test), whole) < 1e-12
    assert seen == 3 * [5, 4, 4, 1]


def test_tracin_on_an_output_is_the_sum_over_checkpoints_of_representers():
    """Tsai et al. 2023, eq. (14), for one output: target importances at each checkpoint times that checkpoint's NTK."""
    train, test, model = targets(9, 3), targets(5, 3, seed=4), xl.models.mlp([3, 4, 1], "tanh", dtype=D)
    how = {"epochs": 6, "lr": 0.01, "optimizer": "sgd", "checkpoints": 3, "loss": "squared_error"}
    run = xl.training.fit(model, train, **how)
    risk, want = xl.Risk(model, train, loss="squared_error"), torch.zeros(5, 9, dtype=D)
    for theta, rate in zip(run.checkpoints, run.learning_rates, strict=True):
        at = risk.at(theta)
        near = xl.representers.kernel(at.model, test.x, train.x)
        want += rate * xl.representers.representer_scores(xl.representers.target_importance(at), near, output=0)
    assert relative_error(tracin(run, train, test, loss="squared_error", measure="output"), want) < 1e-9


def test_one_gradient_step_moves_the_output_by_tracin():
    """One full-batch step of a linear model: the sum over examples, over n, is the change of the output; exact."""
    train, test, model = classes(9), classes(5, seed=4), xl.models.logistic(3, 3, dtype=D)
    run = xl.training.fit(model, train, epochs=1, lr=0.1, optimizer="sgd", checkpoints=2)
    first = xl.training.Trajectory(model, run.checkpoints[:1], run.learning_rates[:1])
    moved = (run.model(test.x) - model(test.x))[:, 1].detach()
    assert relative_error(tracin(first, train, test, measure="output", output=1).sum(1) / 9, moved) < 1e-10


def test_one_logit_with_labels_0_and_1():
    train, test = (
        Examples(normal(30, 3), torch.arange(30) % 2),
        Examples(normal(4, 3, seed=5), torch.tensor([0, 1, 1, 0])),
    )
    model = torch.nn.Linear(3, 1, dtype=D)
    risk = xl.training.minimise(xl.Risk(model, train, loss="binary_cross_entropy", l2=0.1))
    output = loss_influence(risk, test, measure="output")
    assert torch.equal(output, loss_influence(risk, test, measure="output", output=0))
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=D)[:, None]
    assert relative_error(loss_influence(risk, test, measure="margin"), sign * output) < 1e-12
    p = (-risk.losses(test)).exp()[:, None]
    assert relative_error(-(1 - p) * sign * output, loss_influence(risk, test)) < 1e-9


def test_float32_is_float64_to_its_own_rounding():
    risk, test = logistic_risk(), classes(4, seed=5)
    coarse = xl.training.minimise(xl.Risk(risk.model.float(), risk.train.to(torch.float32), l2=risk.l2))
    for options, _ in MEASURES.values():
        got = loss_influence(coarse, test.to(torch.float32), **options)
        assert got.dtype == torch.float32
        assert relative_error(got.double(), loss_influence(risk, test, **options)) < 1e-3


def test_a_sure_model_has_finite_margins():
    """Margins of hundreds: p rounds to 1, and its log-odds are finite all the same."""
    risk = logistic_risk()
    sure = risk.at(200 * risk.theta)
    assert (sure.outputs().softmax(1).max(1).values == 1).any()
    got = loss_influence(sure, classes(5, seed=2), curvature="identity", measure="margin")
    assert torch.isfinite(got).all() and got.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "logit"}, "measure='logit' is unknown; choose one of 'loss', 'output', 'margin'"),
        ({"output": 1}, "output=1 belongs to measure='output', and measure is 'loss'"),
        ({"measure": "margin", "output": 1}, "measure is 'margin'"),
        ({"measure": "output", "output": 3}, "outputs 0 to 2"),
        ({"measure": "output", "output": True}, "outputs 0 to 2"),
        ({"measure": lambda f, y: f}, "one per example"),
        ({"measure": lambda f, y: f[:, 0] - f[:, 1].mean()}, "other examples of its batch"),
        (
            {"measure": lambda f, y: f[:, 0].detach() + torch.as_tensor(f.detach().numpy()[:, 1])},
            "torch has no gradient of the loss 'measure <lambda>'",
        ),
    ],
)
def test_bad_input(options, message):
    risk, test = logistic_risk(), classes(4, seed=5)
    run = xl.training.Trajectory(risk.model, risk.theta[None], torch.ones(1, dtype=D))
    with pytest.raises((ValueError, UserWarning), match=message):
        loss_influence(risk, test, **options)
    with pytest.raises((ValueError, UserWarning), match=message):
        tracin(run, risk.train, test, **options)


def test_a_regression_has_no_margin_and_needs_an_output():
    risk, test = ridge_risk(o=2), targets(4, o=2, seed=8)
    with pytest.raises(ValueError, match="measure='margin' needs class labels"):
        loss_influence(risk, test, measure="margin")
    with pytest.raises(ValueError, match="pass output=, one of 0 to 1"):
        loss_influence(risk, test, measure="output")
    assert loss_influence(risk, test, measure="output", output=1).shape == (4, 30)
    with pytest.raises(ValueError, match="measure='margin' needs class labels"):
        loss_influence(ridge_risk(), targets(4, seed=8), measure="margin")


def test_targets_of_several_outputs_are_no_labels():
    """Though each of them is 0 or 1."""
    y = torch.nn.functional.one_hot(torch.arange(6) % 2).double()
    risk = xl.Risk(torch.nn.Linear(3, 2, dtype=D), Examples(normal(6, 3), y), loss="squared_error", l2=0.1)
    with pytest.raises(ValueError, match="measure='margin' needs class labels"):
        loss_influence(xl.training.minimise(risk), risk.train, measure="margin")
