"""Flat vectors and named parameters: order, subsets, the recognised head, and a caller's model that never changes."""

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.params import Parameters
from tests.problems import Renamed, classes, convolution, images, logistic_risk, network_risk, normal


def snapshot(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        {n: (p.requires_grad, None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()},
        {n: m.training for n, m in model.named_modules()},
        {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
    )


def assert_untouched(model, before):
    after = snapshot(model)
    assert after[0].keys() == before[0].keys() and all(torch.equal(after[0][k], v) for k, v in before[0].items())
    assert {n: r for n, (r, _) in after[1].items()} == {n: r for n, (r, _) in before[1].items()}
    assert all(g is None for _, g in after[1].values())
    assert after[2:] == before[2:]


def test_flat_is_named_parameters_in_order_row_major():
    model = xl.models.mlp([3, 4, 2], dtype=torch.float64)
    parameters = Parameters(model)
    assert torch.equal(parameters.theta, torch.cat([p.detach().flatten() for p in model.parameters()]))
    named = parameters.named(parameters.theta)
    assert list(named) == [n for n, _ in model.named_parameters()]
    assert all(torch.equal(named[n], p) for n, p in model.named_parameters())
    theta = normal(parameters.theta.numel())
    assert torch.equal(torch.cat([t.flatten() for t in parameters.named(theta).values()]), theta)
    assert torch.equal(Parameters(parameters.model_at(theta)).theta, theta)


def test_a_list_is_taken_in_the_models_order_and_once():
    model = xl.models.mlp([3, 4, 2], dtype=torch.float64)
    chosen = Parameters(model, ["linear2.bias", "linear1.weight", "linear2.bias"])
    assert chosen.names == ("linear1.weight", "linear2.bias")
    theta = normal(14)
    moved = chosen.model_at(theta)
    assert torch.equal(moved.linear1.weight.flatten(), theta[:12]) and torch.equal(moved.linear2.bias, theta[12:])
    assert torch.equal(moved.linear1.bias, model.linear1.bias) and torch.equal(
        moved.linear2.weight, model.linear2.weight
    )
    assert torch.allclose(chosen.outputs(theta, normal(5, 3)), moved(normal(5, 3)))


def test_last_is_the_last_linear_layer():
    assert Parameters(xl.models.mlp([3, 4, 2]), "last").names == ("linear2.weight", "linear2.bias")
    assert Parameters(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)), "last").names == (
        "2.weight",
    )
    assert Parameters(nn.Linear(3, 2), "last").names == ("weight", "bias")
    with pytest.raises(ValueError, match="'last'.*Linear"):
        Parameters(nn.Conv2d(1, 2, 3), "last")


def test_model_at_keeps_what_was_frozen_frozen():
    model = xl.models.mlp([3, 4, 2])
    model.linear1.requires_grad_(False)
    again = Parameters(model, "last").model_at(Parameters(model, "last").theta)
    assert {n: p.requires_grad for n, p in again.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


def test_theta_is_a_copy_and_the_private_model_too():
    model = xl.models.logistic(3, 2)
    parameters = Parameters(model)
    before, x = parameters.theta.clone(), torch.randn(4, 3)
    outputs = parameters.outputs(before, x)
    with torch.no_grad():
        model.linear.weight.zero_()
    assert torch.equal(parameters.theta, before) and torch.equal(parameters.outputs(before, x), outputs)
    parameters.model_at(before).linear.weight.data.zero_()
    assert torch.equal(parameters.outputs(before, x), outputs)


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()

    def forward(self, x):
        return x + self.b(self.a(x))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3).double()

    def forward(self, x):
        return self.a(self.a(x))


class Swapped(nn.Module):
    """The last Linear in module order is not the last one that runs."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()

    def forward(self, x):
        return self.second(self.first(x))


def positive(activation):
    """A final activation that does nothing on the two examples the probe sees, and something on others."""
    model = nn.Sequential(nn.Linear(3, 3), activation).double()
    with torch.no_grad():
        model[0].bias.fill_(1.0)
    return model


@pytest.mark.parametrize(
    ("model", "choice", "found"),
    [
        (nn.Linear(3, 3).double(), "all", True), (xl.models.logistic(3, 3).double(), "all", True),
        (nn.Sequential(nn.Linear(3, 3), nn.Identity()).double(), "all", True),
        (xl.models.mlp([3, 4, 3]).double(), "last", True), (xl.models.mlp([3, 4, 3]).double(), "all", False),
        (xl.models.logistic(3, 3).double(), ["linear.weight"], False), (Skip(), "last", False), (Twice(), "last", False),
        (Swapped(), "last", True), (positive(nn.ReLU()), "all", False), (positive(nn.ReLU(inplace=True)), "all", False),
        (positive(nn.Hardtanh(-9, 9)), "all", False), (Renamed(nn.Linear(3, 3).double()), "all", False),
    ],
)  # fmt: skip
def test_the_head_is_recognised_only_where_it_is_one(model, choice, found):
    train = classes(12)
    train = xl.datasets.Examples(torch.cat([0.01 * train.x[:2], 5 * train.x[2:]]), train.y)
    risk = xl.Risk(model, train, parameters=choice, l2=0.1)
    assert (risk.head is not None) == found
    if found:
        assert torch.allclose(risk.features() @ risk.head.matrix(risk.theta).T, risk.outputs())
        assert torch.equal(risk.head.flat(risk.head.matrix(risk.theta)), risk.theta)
    want = torch.stack(
        [torch.func.grad(risk._loss_of_one)(risk.theta, x, y) for x, y in zip(train.x, train.y, strict=True)]
    )
    assert torch.allclose(risk.loss_gradients(), want, atol=1e-12)


def everything(risk, test):
    risk.value(), risk.gradient(), risk.losses(test), risk.loss_gradients(test)
    xl.curvature.hessian(risk), xl.curvature.gauss_newton(risk), xl.curvature.empirical_fisher(risk)
    xl.curvature.top_eigenvalues(risk, 1)
    xl.influence.loss_influence(risk, test, damping=1.0)
    removal = xl.influence.removal_effect(risk, [[0, 1]], damping=1.0)
    removal.loss_change(test), removal.model(0)
    xl.training.minimise(risk, tolerance=1e-3)


@pytest.mark.filterwarnings("ignore::explainlib.risk.NotAtMinimumWarning")
@pytest.mark.parametrize("parameters", ["all", "last"])
def test_the_callers_model_is_bit_identical_afterwards(parameters):
    for model, train, test in [
        (convolution(), images(8), images(3, seed=5)), (xl.models.logistic(3, 3).double(), classes(12), classes(3, seed=2)),
    ]:  # fmt: skip
        before = snapshot(model)
        everything(xl.Risk(model, train, l2=0.5, parameters=parameters), test)
        xl.training.fit(model, train, epochs=2, batch_size=4, swa=1)
        assert_untouched(model, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("place", ["explainlib.losses.CrossEntropy.value", "explainlib.risk.risk.Parameters.outputs"])
def test_also_after_an_error_in_the_middle(monkeypatch, error, place):
    model = xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64)
    train, before, state = classes(12), snapshot(model), (torch.get_num_threads(), xl.compute.flushes_denormals())
    risk = xl.Risk(model, train, l2=0.5)
    theta = risk.theta.clone()

    def broken(*args, **kwargs):
        raise error("stop")

    monkeypatch.setattr(place, broken)
    for work in (lambda: xl.training.minimise(risk), lambda: xl.curvature.hessian(risk), risk.loss_gradients):
        with pytest.raises(error, match="stop"):
            work()
    if "Cross" in place:
        with pytest.raises(error, match="stop"):
            xl.training.fit(model, train, epochs=1)
    monkeypatch.undo()
    assert_untouched(model, before)
    assert torch.equal(risk.theta, theta)
    assert (torch.get_num_threads(), xl.compute.flushes_denormals()) == state
    assert torch.isfinite(risk.value())


def test_hooks_are_gone_after_an_error_in_the_forward_pass():
    risk = logistic_risk(12)
    with pytest.raises(RuntimeError):
        risk.head.features(normal(4, 7))
    assert not risk.head.layer._forward_hooks


def test_tied_weights_are_one_parameter():
    a = nn.Linear(3, 3, bias=False).double()
    model = nn.Sequential(a, nn.Tanh(), a)
    risk = xl.Risk(model, classes(12), l2=0.1)
    assert risk.p == 9 and risk.head is None
    want = torch.autograd.grad(
        torch.nn.functional.cross_entropy(model(risk.train.x), risk.train.y) + 0.05 * a.weight.square().sum(), a.weight
    )[0]
    assert torch.allclose(risk.gradient(), want.flatten(), atol=1e-12)


def test_network_in_training_mode_without_random_layers_is_fine():
    assert network_risk().n == 24
