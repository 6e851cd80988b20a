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
