"""Products with training gradients by every route, a bounded number of bytes at a time."""

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.influence import products
from explainlib.influence.products import member_sums, training_products
from tests.problems import classes, general, logistic_risk, network_risk, normal, relative_error


class Scaled(nn.Module):
    """A layer that is not recorded: its gradients are taken one example at a time."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(normal(3, seed=2))

    def forward(self, x):
        return x * self.weight.tanh()


def by_examples():
    return xl.Risk(nn.Sequential(Scaled(), nn.Linear(3, 3)).double(), classes(11), l2=0.1)


ROUTES = {
    "head": logistic_risk,
    "layers": network_risk,
    "renamed": lambda: general(logistic_risk()),
    "one": by_examples,
}


@pytest.fixture
def widths(monkeypatch):
    """Return the widths of the blocks that are made."""
    asked, real = [], products.slices
    monkeypatch.setattr(products, "slices", lambda total, width: asked.append(width) or real(total, width))
    return asked


@pytest.mark.filterwarnings("ignore::explainlib.layerwise.FallbackWarning")
@pytest.mark.parametrize("block", [1, 2**26])
@pytest.mark.parametrize("make", ROUTES.values(), ids=ROUTES)
def test_they_are_those_of_the_gradients(make, block, monkeypatch):
    monkeypatch.setattr(products, "BLOCK", block)
    risk = make()
    gradients = risk.loss_gradients()
    for k in (2, 9):
        vectors = normal(k, risk.p, seed=3)
        assert relative_error(training_products(risk, vectors), vectors @ gradients.T) < 1e-11
    weights = normal(3, risk.n, seed=4) * (torch.arange(risk.n) % 3 == 1)
    weights[0] = 0
    sums = member_sums(risk, weights)
    assert relative_error(sums, weights @ gradients) < 1e-11 and not sums[0].any()


@pytest.mark.filterwarnings("ignore::explainlib.layerwise.FallbackWarning")
def test_as_many_gradients_at_a_time_as_the_block_holds(widths, monkeypatch):
    risk = by_examples()
    monkeypatch.setattr(products, "BLOCK", 5 * 8 * risk.p + 1)
    training_products(risk, normal(2, risk.p))
    member_sums(risk, torch.ones(2, risk.n).double())
    assert widths == [5, 5]


@pytest.mark.parametrize(("k", "width"), [(2, 10), (4, 5), (6, 5)])
def test_of_a_final_layer_the_smaller_of_gradients_and_outputs(k, width, widths, monkeypatch):
    """k vectors, or d = 4 features, times three outputs, of eight bytes each."""
    risk = logistic_risk()
    monkeypatch.setattr(products, "BLOCK", 480)
    training_products(risk, normal(k, risk.p))
    assert widths == [width]
