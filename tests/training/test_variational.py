"""The evidence lower bound as a risk: its derivatives, its removals, training alone and in ensembles."""

from functools import cache

import pytest
import torch

import explainlib as xl
from explainlib.models.bayes import bayesian_lenet, bayesian_mlp
from explainlib.studies.fragility.bench import last_layer
from explainlib.training import Plateau, fresh_starts
from explainlib.training.variational import ensembles as variational_ensembles
from explainlib.training.variational.elbo import (
    NOISE,
    ElboRisk,
    expected_cross_entropy,
    fit_variational,
    gaussian_cost,
    sampled_cross_entropy,
)
from explainlib.training.variational.ensembles import StackedBayesian, fit_variational_ensemble
from tests.problems import classes, normal, relative_error

D = torch.float64
LOSSES = ("sampled_cross_entropy", "expected_cross_entropy", "gaussian")


def net(activation="tanh", seed=1):
    return bayesian_mlp([3, 4, 3], activation, seed=seed, dtype=D)


def bound(loss="sampled_cross_entropy", **options):
    return ElboRisk(net(), classes(24), loss=loss, **options)


def plain_bound(risk, model, theta):
    """Return R(theta) by hand: assign the parameters, ask the network for its moments, add its divergence."""
    start, named = 0, {}
    for name, parameter in model.named_parameters():
        named[name] = theta[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()

    class Objective(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x, y, weights):
            cost = risk.loss.function(torch.cat(self.net.propagated(x), 1), y)
            return (weights * cost).sum() / len(x) + risk.kl_weight / len(x) * self.net.kl(risk.prior_variance)

    inputs = (risk.train.x, risk.train.y, risk.weights_or_ones())
    return torch.func.functional_call(Objective(), {f"net.{name}": part for name, part in named.items()}, inputs)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_gradient_and_hessian_are_the_bounds(loss, weighted):
    risk = bound(loss, kl_weight=0.7, prior_variance=2)
    if weighted:
        risk = risk.reweighted(torch.linspace(0, 2, 24, dtype=D))
    risk = risk.at(risk.theta + 0.3 * normal(risk.p, seed=5))
    model = risk.model
    by_hand = lambda theta: plain_bound(risk, model, theta)  # noqa: E731
    assert torch.allclose(risk.value(), by_hand(risk.theta), rtol=1e-12)
    assert relative_error(risk.gradient(), torch.func.grad(by_hand)(risk.theta)) < 1e-12
    dense = torch.autograd.functional.hessian(by_hand, risk.theta)
    assert relative_error(xl.curvature.hessian(risk), dense) < 1e-11
    assert torch.allclose(risk.weighted_value(risk.theta, risk.weights_or_ones()), risk.value(), rtol=1e-12)


def test_costs_are_their_formulas():
    moments, y = torch.tensor([[1.0, -1.0, 0.5, 0.25]], dtype=D), torch.tensor([0])
    p = torch.tensor([1.0, -1.0], dtype=D).softmax(0)
    want = -p[0].log() + (p[0] * p[1] * 0.75) / 2
    assert torch.allclose(expected_cross_entropy(moments, y)[0], want)
    v = (p[0] * p[1]) ** 2 * 0.75 + NOISE  # both classes: J = +-p0 p1
    assert torch.allclose(gaussian_cost(moments, y)[0], v.log() + p[1] ** 2 / v)


def test_expected_cross_entropy_is_second_order():
    """Against 200,000 draws of the logits: the cost of the mean alone is off, the corrected one is not."""
    mean, variance = torch.tensor([1.0, 0.0, -1.0], dtype=D), torch.tensor([0.1, 0.2, 0.05], dtype=D)
    y = torch.zeros(200_000, dtype=torch.int64)
    draws = mean + variance.sqrt() * normal(200_000, 3, seed=3)
    truth = torch.nn.functional.cross_entropy(draws, y)
    corrected = expected_cross_entropy(torch.cat([mean, variance])[None], y[:1])[0]
    uncorrected = torch.nn.functional.cross_entropy(mean[None], y[:1])
    assert abs(truth - corrected) < 3e-3 and abs(truth - uncorrected) > 2e-2


def test_the_divergence_is_in_the_hessian_and_in_no_gradient_of_an_example():
    with_kl, without = bound(), bound(kl_weight=0)
    assert torch.equal(with_kl.loss_gradients(), without.loss_gradients())
    assert relative_error(xl.curvature.hessian(with_kl), xl.curvature.hessian(without)) > 0.05
    half = with_kl.subset(range(12))  # a batch stands for all: the divergence keeps its share
    assert torch.allclose(half.value(), half.losses().mean() + with_kl.kl() / 24)


def test_influence_is_the_finite_difference_of_retraining_the_bound():
    """Newton by hand to a minimum, with weight 1 +- eps on one example: the slope is the influence."""
    risk = bound()

    def minimum(weights):
        theta = start
        for _ in range(30):
            at = risk.reweighted(weights).at(theta)
            gradient = at.gradient()
            if gradient.norm() < 1e-13:
                break
            theta = theta - torch.linalg.solve(xl.curvature.hessian(at), gradient)
        assert gradient.norm() < 1e-11
        return theta

    start = fit_variational_ensemble(risk, starts=risk.theta[None], epochs=1000, lr=0.02).theta[0]
    ones, j, eps = torch.ones(24, dtype=D), 5, 1e-3
    start = minimum(ones)
    moved = [minimum(ones.clone().index_fill_(0, torch.tensor(j), 1 + s * eps * risk.n)) for s in (1, -1)]
    influence = xl.influence.parameter_influence(risk.at(start), [j], strict=True)[0]
    assert relative_error(influence, (moved[0] - moved[1]) / (2 * eps)) < 1e-3
    table = xl.influence.loss_influence(risk.at(start), classes(4, seed=9), solver="cg")
    assert table.shape == (4, 24) and torch.isfinite(table).all()


@cache
def at_its_minimum(loss):
    risk = bound(loss)
    risk = risk.at(fit_variational_ensemble(risk, starts=risk.theta[None], epochs=500, lr=0.02).theta[0])
    return xl.training.minimise(risk)


@cache
def by_hand(loss):
    """Gradients of the 24 training and the 4 test examples one at a time, and the Hessian, of the objective by hand."""
    risk, test = at_its_minimum(loss), classes(4, seed=9)
    model = risk.model

    def gradients(examples):
        one = [ElboRisk(model, examples[[i]], loss=loss, kl_weight=0).at(risk.theta) for i in range(len(examples))]
        return torch.stack([torch.func.grad(lambda t, r=r: plain_bound(r, model, t))(risk.theta) for r in one])

    hessian = torch.autograd.functional.hessian(lambda t: plain_bound(risk, model, t), risk.theta)
    return gradients(risk.train), gradients(test), hessian


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", [{}, {"curvature": "identity"}, {"curvature": "empirical_fisher", "damping": 0.1}])
def test_loss_influence_of_every_cost_is_the_dense_formula(loss, options):
    risk, test = at_its_minimum(loss), classes(4, seed=9)
    rows, tests, hessian = by_hand(loss)
    eye = torch.eye(risk.p, dtype=D)
    matrix = {None: hessian, "identity": eye, "empirical_fisher": rows.T @ rows / risk.n}[options.get("curvature")]
    want = -tests @ torch.linalg.solve(matrix + options.get("damping", 0.0) * eye, rows.T)
    assert relative_error(xl.influence.loss_influence(risk, test, **options), want) < 1e-8


def test_a_bayesian_network_under_a_risk_is_refused():
    """Its forward is that of the means: no loss would move a variance."""
    for model in (net(), bayesian_lenet(1, 3), torch.nn.Sequential(net(), torch.nn.Identity())):
        with pytest.raises(TypeError, match=r"Gaussian weights.*xl\.training\.ElboRisk"):
            xl.Risk(model, classes(24))


@pytest.mark.parametrize("label", [0, 2])
def test_the_default_cost_is_right_at_any_variance(label):
    """Against 400,000 draws, up to what trained networks have."""
    mean, y = torch.tensor([1.0, 0.0, -1.0], dtype=D), torch.full((400_000,), label)
    for variance in (0.1, 1.0, 5.0, 10.0, 50.0, 200.0):
        truth = torch.nn.functional.cross_entropy(mean + variance**0.5 * normal(400_000, 3, seed=3), y)
        moments = torch.cat([mean, torch.full((3,), variance, dtype=D)])[None]
        assert float(sampled_cross_entropy(moments, y[:1])[0]) == pytest.approx(float(truth), rel=0.02)
        single = sampled_cross_entropy(moments.float(), y[:1])[0]
        assert float(single) == pytest.approx(float(sampled_cross_entropy(moments, y[:1])[0]), rel=1e-5)
    assert ElboRisk(net(), classes(24)).cost == "sampled_cross_entropy"


def test_training_without_examples_keeps_the_batches():
    """Steps before the example's own batch are the same to the bit; with batches of their own the first one differs."""
    train, options = classes(24), {"epochs": 1, "batch_size": 6, "seed": 3, "optimizer": "sgd", "checkpoints": 5}
    whole = fit_variational(net(), train, **options).checkpoints
    removed = [fit_variational(net(), train, without=[j], **options).checkpoints for j in range(24)]
    same = [int((path == whole).all(1).sum()) for path in removed]  # checkpoints, the start included
    assert sorted(same) == sorted([1, 2, 3, 4] * 6)
    outside = fit_variational(net(), train[[j for j in range(24) if j != same.index(4)]], **options).checkpoints
    assert not torch.equal(outside[1], whole[1])


def test_the_taylor_cost_is_for_small_variances():
    """Against 400,000 draws, as its docstring says."""
    mean, y = torch.tensor([1.0, 0.0, -1.0], dtype=D), torch.zeros(400_000, dtype=torch.int64)
    off = []
    for variance in (0.1, 1.0, 5.0, 10.0):
        truth = torch.nn.functional.cross_entropy(mean + variance**0.5 * normal(400_000, 3, seed=3), y)
        spread = torch.full((3,), variance, dtype=D)
        off.append(float(expected_cross_entropy(torch.cat([mean, spread])[None], y[:1])[0] / truth) - 1)
    assert off == pytest.approx([0.0, 0.02, 0.21, 0.42], abs=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_last_layer_keeps_loss_and_weights(loss):
    weights = torch.linspace(0, 2, 24, dtype=D)
    whole = bound(loss, kl_weight=0.7, prior_variance=2).reweighted(weights)
    last = last_layer(whole)
    assert torch.allclose(last.value(), whole.value(), rtol=1e-12)
    assert relative_error(last.gradient(), whole.gradient()[-last.p :]) < 1e-12
    model = xl.models.mlp([3, 4, 1], "tanh", dtype=D)
    plain = xl.Risk(model, xl.datasets.Examples(normal(9, 3), normal(9, 1, seed=1)), loss="squared_error", l2=0.1)
    assert last_layer(plain).loss is plain.loss
    assert relative_error(last_layer(plain).gradient(), plain.gradient()[-5:]) < 1e-12


def test_what_would_miss_the_divergence_is_refused():
    risk = bound()
    with pytest.raises(ValueError, match="miss the bound's divergence"):
        list(risk.parts())
    for curvature in (xl.curvature.gauss_newton, lambda r: xl.curvature.gauss_newton_product(r, r.theta)):
        with pytest.raises(ValueError, match="no Gauss-Newton|miss the bound"):
            curvature(risk)
    assert xl.curvature.empirical_fisher(risk).shape == (risk.p, risk.p)


def test_last_layer_and_names():
    risk = bound(parameters="last")
    assert risk.p == 2 * 15 and risk.head is None
    assert risk.parameters.names[0] == "net.linear2.weight"
    whole = bound()
    assert torch.equal(risk.gradient(), whole.gradient()[-30:])
    assert torch.allclose(risk.value(), whole.value())
    means = bound(parameters=["linear1.weight", "linear2.weight"])
    assert means.p == 12 + 12


@pytest.mark.parametrize("loss", LOSSES)
def test_fit_variational_lowers_the_bound_it_reports(loss):
    model, train = net(), classes(24)
    before = [p.clone() for p in model.parameters()]
    trained = fit_variational(model, train, epochs=60, lr=0.02, loss=loss, checkpoints=3, kl_weight=0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    risk = ElboRisk(trained.model, train, loss=loss, kl_weight=0.5)
    first = risk.at(trained.checkpoints[0])
    assert torch.allclose(first.value(), torch.tensor(trained.losses[0], dtype=D))
    assert risk.value() < 0.9 * first.value() if first.value() > 0 else risk.value() < first.value()
    assert torch.equal(trained.checkpoints[-1], risk.theta)
    batched = fit_variational(model, train, epochs=5, batch_size=8, swa=2)
    assert len(batched.batches) == 15 and isinstance(batched.model, type(model))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_ensemble_is_the_loop(loss, activation):
    train = classes(24)
    risk = ElboRisk(net(activation), train, loss=loss)
    together = fit_variational_ensemble(risk, seeds=[0, 3], epochs=40, lr=0.02)
    for row, seed in enumerate((0, 3)):
        alone = fit_variational(net(activation, seed), train, epochs=40, lr=0.02, loss=loss)
        assert relative_error(together.theta[row], ElboRisk(alone.model, train, loss=loss).theta) < 1e-8
        assert torch.allclose(together.losses[row], together[row].value(), rtol=1e-10)
        assert torch.allclose(together.gradient_norm[row], together[row].gradient().norm(), rtol=1e-7)
    assert torch.equal(fresh_starts(risk, [3])[0], ElboRisk(net(activation, 3), train).theta)


@pytest.mark.parametrize("networks", [0, 1, 2])
def test_batches_do_not_change_an_ensemble(networks, monkeypatch):
    """One that is larger than a batch may be is trained alone."""
    risk, sizes = bound(), []
    whole = fit_variational_ensemble(risk, seeds=[0, 1, 2], epochs=5, lr=0.02)

    class Counted(StackedBayesian):
        def __init__(self, risk, weights):
            sizes.append(len(weights))
            super().__init__(risk, weights)

    monkeypatch.setattr(variational_ensembles, "StackedBayesian", Counted)
    monkeypatch.setattr(variational_ensembles, "NUMBERS", networks * StackedBayesian.numbers(risk) + 1)
    parts = fit_variational_ensemble(risk, seeds=[0, 1, 2], epochs=5, lr=0.02)
    assert sizes == {0: [1, 1, 1], 1: [1, 1, 1], 2: [2, 1]}[networks]
    assert torch.allclose(parts.theta, whole.theta, rtol=1e-12, atol=1e-14)


def test_ensemble_weights_remove_examples_and_keep_the_divergence():
    risk = bound()
    weights = torch.ones(2, 24, dtype=D)
    weights[1, 7] = 0
    starts = risk.theta.repeat(2, 1)
    networks = StackedBayesian(risk, weights)
    values, gradients = networks.values(starts), networks.gradients(starts)
    for row in (0, 1):
        one = risk.reweighted(weights[row])
        assert torch.allclose(values[row], one.value(), rtol=1e-12)
        assert relative_error(gradients[row], one.gradient()) < 1e-12
    part = fit_variational_ensemble(bound(parameters="last"), starts=starts[:, -30:], weights=weights, epochs=5,
                                    schedule=Plateau(patience=1), optimizer="sgd")  # fmt: skip
    assert part.theta.shape == (2, 30) and not torch.equal(part.theta[0], part.theta[1])


def test_batches_of_an_ensemble_do_not_change_the_networks(monkeypatch):
    risk = bound()
    weights = torch.linspace(0.5, 1.5, 3 * 24, dtype=D).view(3, 24)
    how = {"seeds": [0, 1, 2], "weights": weights, "epochs": 20, "lr": 0.02, "schedule": Plateau(patience=1)}
    whole = fit_variational_ensemble(risk, **how)
    monkeypatch.setattr(variational_ensembles, "NUMBERS", 1)
    single = fit_variational_ensemble(risk, **how)
    assert len(whole) == len(single) == 3 and torch.equal(whole.weights, weights)
    assert torch.allclose(whole.theta, single.theta, rtol=1e-12, atol=0)
    assert whole.status == single.status and not whole.losses.requires_grad


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: ElboRisk(xl.models.mlp([3, 4, 3], dtype=D), classes()), TypeError, "Bayesian"),
        (lambda: bound("cross_entropy"), ValueError, "'gaussian'"),
        (lambda: bound(kl_weight=-1), ValueError, "kl_weight"),
        (lambda: bound(prior_variance=0), ValueError, "prior_variance"),
        (lambda: ElboRisk(net(), classes(20, C=4)), ValueError, "3 outputs"),
        (lambda: bound().losses(classes(20, C=4)), ValueError, "3 outputs"),
        (lambda: fit_variational(net(), classes(), epochs=0), ValueError, "epochs"),
        (lambda: fit_variational_ensemble(bound(), epochs=1), ValueError, "neither of starts and seeds"),
        (lambda: fit_variational_ensemble(bound(), epochs=1, starts=torch.zeros(1, 3, dtype=D)), ValueError, "starts"),
        (lambda: fit_variational_ensemble(bound(), epochs=1, starts=bound().theta[:0, None]), ValueError, "starts"),
        (lambda: fit_variational_ensemble(bound(), epochs=1, starts=bound().theta[None][:0]), ValueError, "no rows"),
        (lambda: fit_variational_ensemble(bound(), epochs=0, seeds=[0]), ValueError, "epochs=0"),
        (lambda: fit_variational_ensemble(bound(), epochs=1, seeds=[0], optimizer="lion"), ValueError, "'lion'"),
        (
            lambda: fit_variational_ensemble(
                ElboRisk(
                    bayesian_lenet(1, 3, side=12, dtype=D),
                    xl.datasets.Examples(torch.rand(6, 1, 12, 12, dtype=D), torch.arange(6) % 3),
                ),
                epochs=1,
                seeds=[0],
            ),
            TypeError,
            "'conv1' is a BayesianConv2d.*fit_variational",
        ),
    ],
)
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()
