"""Forwards that reach beyond a copy, hold generators, or depend on gradients and precision: right, or a true sentence."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import explainlib as xl
from tests.gate.nets import OffByOnePercent
from tests.problems import classes, relative_error


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval()


class Net(nn.Module):
    """Two layers; subclasses do one unusual thing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.read = nn.Linear(3, 4), nn.Linear(4, 3)
        self.prepare()

    def prepare(self):
        pass

    def forward(self, x):
        return self.read(self.first(x).tanh())


def refused(model, match, x=None):
    """check_model and an entry point say the same."""
    x = classes(9).x if x is None else x
    report = xl.check_model(model, x)
    assert not report.ok
    for act in (report.require, lambda: xl.representers.kernel(model, x, x)):
        with pytest.raises((ValueError, TypeError), match=match):
            act()


def plain_kernel(net, x):
    rows = []
    for c in range(3):
        grads = [torch.autograd.grad(net(one[None].clone())[0, c], [*net.parameters()]) for one in x]
        rows.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in grads]))
    return sum(row @ row.T for row in rows)


class Closed(Net):
    def prepare(self):
        self.act = lambda x: self.first(x)

    def forward(self, x):
        return self.read(self.act(x).tanh())


class ClosedWeight(Closed):
    def prepare(self):
        self.act = lambda x: x @ self.first.weight.T


def replaced():
    net = Net()
    net.forward = lambda x: net.read(net.first(x).tanh())
    return net


OUTSIDE = nn.Linear(3, 3).double()


class Outside(Net):
    def forward(self, x):
        return super().forward(x) + OUTSIDE(x)


@pytest.mark.parametrize("make", [Closed, ClosedWeight, replaced, Outside])
def test_a_function_that_holds_the_original_is_refused(make):
    """Its copy would run on the original's parameters, whose derivative is zero in the copy's."""
    refused(seeded(make), r"trainable parameter of shape \[\d, 3\] that is not one of the model's own")


def test_frozen_layers_from_elsewhere_are_constants():
    net, x = seeded(Outside), classes(6).x
    OUTSIDE.requires_grad_(False)
    try:
        found = xl.representers.kernel(net, x, x)
    finally:
        OUTSIDE.requires_grad_(True)
    assert relative_error(found, plain_kernel(net, x)) < 1e-12


GLOBAL = np.random.default_rng(0)


class Lucky(Net):
    """A draw that matters once in a thousand."""

    def draw(self):
        return GLOBAL.random()

    def forward(self, x):
        return super().forward(x) * (1.1 if self.draw() < 1e-3 else 1.0)


class Named(Lucky):
    def forward(self, x):
        return Net.forward(self, x) * (1.1 if GLOBAL.random() < 1e-3 else 1.0)


class Listed(Lucky):
    def prepare(self):
        self.kept = {"generators": [np.random.RandomState(0)]}

    def draw(self):
        return self.kept["generators"][0].rand()


class Pythons(Lucky):
    def prepare(self):
        self.kept = random.Random(0)

    def draw(self):
        return self.kept.random()


class Torchs(Lucky):
    def prepare(self):
        self.kept = torch.Generator()

    def draw(self):
        return float(torch.rand((), generator=self.kept))


@pytest.mark.parametrize("make", [Named, Listed, Pythons, Torchs])
def test_generators_of_the_models_own_are_seen_when_they_are_read(make):
    before = GLOBAL.bit_generator.state
    refused(seeded(make), "random")
    assert GLOBAL.bit_generator.state == before


def test_a_generator_that_is_only_kept_is_none_of_our_business():
    net = seeded(Net)
    net.kept = np.random.default_rng(0)
    assert xl.check_model(net, classes(6).x).ok


class Graded(Net):
    def forward(self, x):
        return super().forward(x) * (1.0 if torch.is_grad_enabled() else 1.1)


class Required(Net):
    def forward(self, x):
        h = self.first(x)
        return self.read(h.tanh() if h.requires_grad else 1.1 * h.tanh())


@pytest.mark.parametrize("make", [Graded, Required])
def test_another_answer_with_gradients_is_refused(make):
    refused(seeded(make), "other outputs where gradients are on")


class Clipped(Net):
    def forward(self, x):
        x[x > 2] = 2.0
        return super().forward(x)


def test_a_forward_that_writes_only_into_outliers():
    net, x = seeded(Clipped), classes(9).x.clamp(-1.5, 1.5)
    x[3, 1] = 7.0  # not among the first, the middle and the last
    before = x.clone()
    found = xl.representers.kernel(net, x, x)
    assert torch.equal(x, before)
    assert relative_error(found, plain_kernel(net, x)) < 1e-12


class Upcast(nn.Module):
    def forward(self, x):
        h = x.to(torch.float32)
        return (h * (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_layer_that_rounds_inside_is_compared_with_wider_steps(dtype):
    def make(*more):
        return nn.Sequential(nn.Linear(3, 8), Upcast(), *more, nn.Tanh(), nn.Linear(8, 3))

    x = classes(6).x.to(dtype)
    net = seeded(make).to(dtype)
    assert xl.check_model(net, x, order=3).ok
    tolerance = 1e-4 if dtype == torch.float32 else 1e-5
    assert relative_error(xl.representers.kernel(net, x, x), plain_kernel(net, x)) < tolerance
    refused(seeded(lambda: make(Wrong())).to(dtype), "gradient", x)


class Wrong(nn.Module):
    def forward(self, x):
        return OffByOnePercent.apply(x)


class ByPrecision(Net):
    def forward(self, x):
        y = super().forward(x)
        if x.dtype == torch.float64:
            return y
        for _ in range(8):
            y = OffByOnePercent.apply(y)
        return y.exp()


def test_what_only_float32_runs_is_compared_in_float32():
    refused(seeded(ByPrecision).float(), "gradient .* is wrong", classes(6).x.float())


class Forgetful(Net):
    def prepare(self):
        self.scale = 1.0

    def __deepcopy__(self, memo):
        other = type(self)().double().train(self.training)
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, x):
        return self.scale * super().forward(x)


class Itself(Net):
    def __deepcopy__(self, memo):
        return self


def test_a_copy_that_is_another_model_is_refused():
    x, net = classes(6).x, seeded(Forgetful)
    assert xl.check_model(net, x).ok
    net.scale = 2.0
    refused(net, "copy.deepcopy of the model .* gives another model")
    net = seeded(Itself)
    refused(net, "shares its layers")
    assert all(p.requires_grad for p in net.parameters())
