"""The objective against ten lines of plain torch, on every route through the room."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from torch import nn

import explainlib as xl
from explainlib.memory import TooLargeError
from explainlib.risk import minimum_tolerance, require_minimum
from tests.defaults import number_defaults
from tests.gate.nets import Broken, OffByOnePercent
from tests.problems import (
    classes,
    convolution,
    general,
    images,
    logistic_risk,
    loop_gradients,
    network_risk,
    normal,
    plain_objective,
    ridge_risk,
    targets,
)


def absolute(outputs, y):
    return (outputs - y).square().sum(-1).add(1).sqrt()


RISKS = {
    "logistic": lambda: logistic_risk(15), "logistic, general": lambda: general(logistic_risk(15)),
    "relu": lambda: network_risk("relu"), "tanh": network_risk, "last": lambda: network_risk(parameters="last"),
    "list": lambda: network_risk(parameters=["linear2.bias", "linear1.weight"]),
    "convolution": lambda: xl.Risk(convolution(), images(), l2=0.1),
    "convolution, last": lambda: xl.Risk(convolution(), images(), l2=0.1, parameters="last"),
    "squared": lambda: ridge_risk(12, o=2), "squared, general": lambda: general(ridge_risk(12, o=2)),
    "callable": lambda: xl.Risk(nn.Linear(4, 2).double(), targets(12, o=2), loss=absolute, l2=0.3),
}  # fmt: skip


@pytest.fixture(params=RISKS, scope="module")
def base(request):
    return RISKS[request.param]()


@pytest.fixture(params=[False, True], ids=["equal", "weighted"])
def risk(request, base):
    moved = base.at(base.theta + 0.2 * normal(base.p, seed=9))
    if not request.param:
        return moved
    weights = torch.rand(base.n, generator=torch.Generator().manual_seed(1)).double()
    weights[0], weights[1] = 0.0, 3.0
    return moved.reweighted(weights)


def test_value_and_gradient(risk):
    theta = risk.theta.clone().requires_grad_()
    want = plain_objective(risk, theta)
    assert torch.allclose(risk.value(), want)
    assert torch.allclose(risk.gradient(), torch.autograd.grad(want, theta)[0], atol=1e-12)


def test_losses_outputs_and_their_gradients(risk):
    model = risk.model
    test = risk.train[[3, 1, 1]]
    for examples in (None, risk.train, test):
        e = risk.train if examples is None else examples
        assert torch.allclose(risk.outputs(examples), model(e.x))
        assert torch.allclose(risk.losses(examples), risk.loss.function(model(e.x), e.y))
        assert torch.allclose(risk.loss_gradients(examples), loop_gradients(risk, e), atol=1e-12)


def test_gradients_add_up_to_the_gradient(risk):
    mean = risk.weights_or_ones() @ risk.loss_gradients() / risk.n
    assert torch.allclose(mean + risk.l2 * risk.theta, risk.gradient(), atol=1e-12)


def test_parts_change_nothing(risk, monkeypatch):
    whole = (risk.value(), risk.gradient(), risk.outputs(), risk.loss_gradients())
    monkeypatch.setattr("explainlib.risk.risk.PART", 4)
    monkeypatch.setattr(xl.Risk, "_gradient_chunk", lambda self: 4)
    for a, b in zip(whole, (risk.value(), risk.gradient(), risk.outputs(), risk.loss_gradients()), strict=True):
        assert torch.allclose(a, b, atol=1e-13)


@pytest.mark.parametrize("n, sizes", [(8, [8]), (9, [4, 4, 1])])
def test_several_parts_are_half_as_large(n, sizes, monkeypatch):
    """Two of several parts may be in memory at once."""
    monkeypatch.setattr("explainlib.risk.risk.PART", 8)
    assert [len(y) for _, y, _ in logistic_risk(n=n).parts()] == sizes


def test_subset_is_the_risk_on_those_examples(risk):
    chosen = [4, 2, 7]
    part = risk.subset(chosen)
    alone = xl.Risk(risk.model, risk.train[chosen], loss=risk.loss, l2=risk.l2, parameters=list(risk.parameters.names))
    if risk.weights is not None:
        alone = alone.reweighted(risk.weights[chosen])
    assert part.n == 3
    for a, b in [(part.value(), alone.value()), (part.gradient(), alone.gradient()),
                 (part.loss_gradients(), alone.loss_gradients()), (part.outputs(), alone.outputs())]:  # fmt: skip
        assert torch.allclose(a, b, atol=1e-12)


def test_both_routes_agree():
    for make in (lambda: logistic_risk(15), lambda: ridge_risk(12, o=2)):
        fast = make()
        fast = fast.at(fast.theta + 0.1 * normal(fast.p, seed=4))
        slow = general(fast)
        assert fast.head is not None
        test = fast.train[[1, 2]]
        for method in ("value", "gradient", "losses", "outputs", "loss_gradients"):
            assert torch.allclose(getattr(fast, method)(), getattr(slow, method)(), atol=1e-12), method
        assert torch.allclose(fast.loss_gradients(test), slow.loss_gradients(test), atol=1e-12)


def test_reweighting_keeps_one_nth_and_forgets_the_weights_before():
    risk = network_risk()
    ones = torch.ones(risk.n, dtype=torch.float64)
    assert torch.allclose(risk.reweighted(ones).value(), risk.value())
    doubled = risk.reweighted(2 * ones).value() - risk.l2 / 2 * risk.theta.square().sum()
    assert torch.allclose(doubled, 2 * (risk.value() - risk.l2 / 2 * risk.theta.square().sum()))
    assert torch.allclose(risk.reweighted(5 * ones).reweighted(ones).value(), risk.value())
    assert risk.weights is None


def test_a_risk_never_changes_under_the_callers_hands():
    risk = network_risk()
    theta, weights = risk.theta + 1, torch.ones(risk.n, dtype=torch.float64)
    moved, heavy = risk.at(theta), risk.reweighted(weights)
    before = moved.value(), heavy.value()
    theta.zero_()
    weights.mul_(7)
    assert torch.equal(moved.value(), before[0]) and torch.equal(heavy.value(), before[1])


def test_at_forgets_what_was_remembered():
    risk = logistic_risk(15)
    risk.cached("x", lambda: 1)
    assert risk.cached("x", lambda: 2) == 1
    for other in (risk.at(risk.theta), risk.reweighted(risk.weights_or_ones()), risk.subset([0, 1])):
        assert other.cached("x", lambda: 2) == 2


def test_the_model_is_a_copy_with_theta_in_it():
    risk = network_risk()
    moved = risk.at(risk.theta + 1)
    assert torch.equal(xl.Risk(moved.model, risk.train).theta, moved.theta)
    moved.model.linear1.weight.data.zero_()
    assert torch.equal(moved.model.linear1.weight, risk.model.linear1.weight + 1)


@profile(max_examples=10)
@given(c=st.floats(0.1, 10), d=st.integers(1, 4), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_scaling_and_dtypes(c, d, dtype):
    train = targets(6, d=d, o=2).to(dtype)
    model = nn.Linear(d, 2).to(dtype)
    risk = xl.Risk(model, train, loss="squared_error", l2=0.2)
    scaled = xl.Risk(model, train, loss=lambda f, y: c * (f - y).square().sum(-1), l2=0.2 * c)
    assert risk.gradient().dtype == risk.loss_gradients().dtype == risk.outputs().dtype == dtype
    assert torch.allclose(scaled.value(), c * risk.value(), rtol=1e-4)
    assert torch.allclose(scaled.gradient(), c * risk.gradient(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_what_counts_as_a_minimum(dtype, bound):
    """Least squares with x = 1: the gradient is 2 (theta - mean y), so its size can be set."""
    train = xl.datasets.Examples(torch.ones(2, 1, dtype=dtype), torch.tensor([[1.0], [3.0]], dtype=dtype))
    risk = xl.Risk(nn.Linear(1, 1, bias=False).to(dtype), train, loss="squared_error")
    near, far = (risk.at(torch.tensor([2 + s * bound / 2], dtype=dtype)) for s in (0.5, 2.0))
    assert require_minimum(near, strict=True) < bound
    with pytest.warns(xl.NotAtMinimumWarning, match="minimise"):
        require_minimum(far)
    with pytest.raises(ValueError, match="not at a minimum"):
        require_minimum(far, strict=True)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_the_bound_itself_counts_as_a_minimum(dtype, bound, monkeypatch):
    """Least squares with x = 1 and y = 0: the gradient is 2 theta."""
    train = xl.datasets.Examples(torch.ones(2, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype))
    risk = xl.Risk(nn.Linear(1, 1, bias=False).to(dtype), train, loss="squared_error")
    assert minimum_tolerance(risk) == bound
    at = risk.at(torch.tensor([0.25], dtype=dtype))
    monkeypatch.setattr("explainlib.risk.risk.minimum_tolerance", lambda risk: 0.5)
    assert require_minimum(at, strict=True) == 0.5


def test_what_is_said_of_it():
    assert repr(logistic_risk(15)) == "Risk(cross_entropy, n=15, p=12, l2=0.05)"
    assert number_defaults(xl.Risk) == {"l2": 0.0} and number_defaults(require_minimum) == {"strict": False}


def test_another_place_under_other_weights(risk):
    """Differentiable in both, whatever the weights that the risk has."""
    theta = (risk.theta + 0.1 * normal(risk.p, seed=3)).requires_grad_()
    weights = normal(risk.n, seed=4).abs().requires_grad_()
    found = risk.weighted_value(theta, weights)
    want = plain_objective(risk.reweighted(weights), theta)
    assert torch.allclose(found, want)
    by_theta, by_weight = torch.autograd.grad(found, (theta, weights))
    assert torch.allclose(by_theta, torch.autograd.grad(want, theta)[0], atol=1e-12)
    assert torch.allclose(by_weight, risk.at(theta.detach()).losses() / risk.n)


@pytest.mark.parametrize("parameters", ["all", "last"])
def test_the_buffers_of_a_checkpoint_are_those_of_its_model(parameters):
    """Running statistics elsewhere: the trained final layer reads other features."""
    risk = xl.Risk(convolution(), images(), l2=0.1, parameters=parameters)
    risk.gradient()
    model = risk.model
    model[1].running_mean += 0.5
    there = risk.at(risk.theta, buffers=dict(model.named_buffers()))
    want = xl.Risk(model, images(), l2=0.1, parameters=parameters)
    assert not torch.allclose(want.outputs(), risk.outputs())
    for name in ("value", "outputs", "loss_gradients", "gradient"):
        assert torch.allclose(getattr(there, name)(), getattr(want, name)(), atol=1e-12), name
    assert torch.allclose(risk.at(risk.theta).outputs(), risk.outputs())


def test_what_is_remembered_can_be_asked_for():
    risk = logistic_risk(15)
    assert risk.cached_or_none("x") is None
    kept = risk.cached("x", lambda: [1])
    assert risk.cached_or_none("x") is kept


@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk())], ids=["head", "general"])
def test_gradients_that_do_not_fit_are_not_begun(make, monkeypatch):
    """Two copies of n p numbers."""
    risk = make()
    monkeypatch.setattr("explainlib.memory.SMALL", 0)
    monkeypatch.setattr("explainlib.memory.free_memory", lambda device: 2 * 8 * risk.n * risk.p)
    assert risk.loss_gradients().shape == (risk.n, risk.p)
    monkeypatch.setattr("explainlib.memory.free_memory", lambda device: 2 * 8 * risk.n * risk.p - 1)
    with pytest.raises(TooLargeError, match="40 gradients of p = 12 parameters needs 7.68 kB"):
        risk.loss_gradients()


def test_a_wrong_derivative_is_refused_before_it_is_used():
    """Of a layer below, and of the loss, also where a final layer alone is trained."""
    model = nn.Sequential(nn.Linear(3, 4), Broken(nn.Linear(4, 3))).double()
    with pytest.raises(ValueError, match="derivative|gradient"):
        xl.Risk(model, classes(12)).gradient()
    wrong = lambda f, y: OffByOnePercent.apply(f).square().sum(-1)  # noqa: E731
    for parameters in ("all", "last"):
        risk = xl.Risk(
            xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64), classes(12), loss=wrong, parameters=parameters
        )
        with pytest.raises(ValueError, match="loss"):
            risk.gradient()


def test_examples_without_names_fit_those_with_names():
    train = classes(12)
    named = xl.datasets.Examples(train.x, train.y, ("a", "b", "c"))
    model = xl.models.logistic(3, 3).double()
    for own, others in ((named, train), (train, named), (named, named[[3, 1]])):
        assert xl.Risk(model, own).losses(others).shape == (len(others),)
    with pytest.raises(TypeError, match="examples is a Tensor"):
        inspect.unwrap(xl.Risk.require_examples)(xl.Risk(model, named), train.x)


def test_other_classes_are_refused_by_count():
    train = classes(12)
    named = xl.datasets.Examples(train.x, train.y, ("a", "b", "c"))
    four = xl.datasets.Examples(train.x, train.y, ("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="4 classes.*3"):
        xl.Risk(xl.models.logistic(3, 3).double(), named).losses(four)


@pytest.mark.parametrize(("p", "x"), [(100, 4), (50_000, 4), (10, 3 * 32 * 32), (2_000_000, 4), (2**27, 4)])
def test_gradients_are_taken_in_chunks_of_bounded_size(p, x):
    """At most 2^26 numbers: a gradient's own, or 64 for each number of an input; never fewer than 16 examples."""
    sizes = SimpleNamespace(p=p, train=xl.datasets.Examples(normal(12, x), torch.arange(12) % 3))
    chunk = xl.Risk._gradient_chunk(sizes)
    assert chunk >= 16 and (chunk == 16 or chunk * max(p, 64 * x) <= 2**26 < (chunk + 1) * max(p, 64 * x))


def test_chunks_change_no_gradient(monkeypatch):
    risk = general(logistic_risk(12, d=3))
    whole, sizes = risk.loss_gradients(), []
    one = xl.Risk._loss_of_one
    monkeypatch.setattr(xl.Risk, "_loss_of_one", lambda self, *args: sizes.append(1) or one(self, *args))
    monkeypatch.setattr(xl.Risk, "_gradient_chunk", lambda self: 5)
    assert torch.allclose(risk.loss_gradients(), whole, atol=1e-14) and len(sizes) == 3  # 12 in fives
