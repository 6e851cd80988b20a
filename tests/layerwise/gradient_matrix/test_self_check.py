"""The self-check sees recorded gradients that are wrong or NaN, and lets those parameters fall back."""

import pytest
import torch
from torch import nn

from explainlib.layerwise import FallbackWarning, gradients, per_example
from explainlib.layerwise.blocks.outer import OuterProductBlock
from explainlib.layerwise.gradient_matrix import checked_plan
from explainlib.params import Parameters
from tests.layerwise.nets import jacobian
from tests.problems import normal


@pytest.mark.parametrize("factor", [1.0001, -1.0, float("nan")])
def test_wrong_gradients_fall_back(monkeypatch, factor):
    right = OuterProductBlock.materialise_into

    def wrong(self, out):
        right(self, out)
        out[:, self.span] *= factor

    monkeypatch.setattr(OuterProductBlock, "materialise_into", wrong)
    parameters, x, c = Parameters(nn.Linear(4, 3).double()), normal(5, 4), normal(5, 3)
    with pytest.warns(FallbackWarning, match=r"cannot record weight \(in Linear\)"):
        source = gradients(parameters, parameters.theta, x, c)
    assert source.plan.fallback == ("weight",)
    torch.testing.assert_close(per_example(source), jacobian(parameters, x, c))


def test_a_plan_is_checked_once():
    parameters, x = Parameters(nn.Linear(4, 3).double()), normal(5, 4)
    assert checked_plan(parameters, parameters.theta, x) is checked_plan(parameters, parameters.theta, x[:2])


def test_right_gradients_are_recorded():
    parameters, x = Parameters(nn.Linear(4, 3).double()), normal(5, 4)
    plan = checked_plan(parameters, parameters.theta, x)
    assert [parameter.name for parameter in plan.recorded] == ["weight", "bias"] and not plan.fallback


class Scaled(nn.Module):
    """A hidden layer whose gradient is a millionth of the read-out's, and a key's bias, whose gradient is zero."""

    def __init__(self, small):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden, self.out = nn.Linear(4, 4), nn.Linear(4, 3)
        self.small = small

    def forward(self, x):
        h = self.hidden(x)
        return self.out(1 + (h.softmax(1) if self.small is None else self.small * h))


def test_a_small_gradient_that_is_wrong_falls_back_too(monkeypatch):
    right = OuterProductBlock.materialise_into

    def wrong(self, out):
        right(self, out)
        if self.span.start == 0:  # the hidden layer alone
            out[:, self.span] *= 1.01

    monkeypatch.setattr(OuterProductBlock, "materialise_into", wrong)
    parameters, x = Parameters(Scaled(1e-6).double()), normal(5, 4)
    with pytest.warns(FallbackWarning, match="hidden.weight"):
        checked_plan(parameters, parameters.theta, x)


class Keyed(nn.Module):
    """Attention over three positions: a bias of the keys moves no weight of it."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return ((x @ self.key(x).mT).softmax(-1) @ self.value(x)).sum(1)


def test_a_gradient_that_is_zero_but_for_rounding_is_recorded():
    parameters, x = Parameters(Keyed().double()), normal(5, 3, 4)
    plan = checked_plan(parameters, parameters.theta, x)
    assert not plan.fallback
