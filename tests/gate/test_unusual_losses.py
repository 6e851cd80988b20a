"""Losses that draw, mix examples or write into what they get: the right number, or a sentence that is true."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import explainlib as xl
from explainlib.datasets import Examples
from tests.problems import classes, normal, relative_error

GENERATOR = np.random.default_rng(0)


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def single(outputs, y):
    return cross_entropy(outputs, y, reduction="none")


def by_torch(outputs, y):
    return single(outputs, y) * (1.1 if float(torch.rand(())) < 1e-3 else 1.0)


def by_global(outputs, y):
    return single(outputs, y) * (1.1 if GENERATOR.random() < 1e-3 else 1.0)


def by_closure():
    kept = np.random.RandomState(0)
    return lambda outputs, y: single(outputs, y) * (1.1 if kept.rand() < 1e-3 else 1.0)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.01)

    def forward(self, outputs, y):
        return single(self.drop(outputs), y)


@pytest.mark.parametrize("loss", [by_torch, by_global, by_closure(), Dropped()])
def test_what_is_drawn_in_a_loss_is_seen_by_its_cause(loss):
    with pytest.raises(ValueError, match="random"):
        xl.Risk(net(), classes(9), loss=loss).loss_gradients()


def test_a_module_in_evaluation_mode_is_a_loss():
    loss = Dropped().eval()
    found = xl.Risk(net(), classes(9), loss=loss)
    assert relative_error(found.loss_gradients(), found_again(found)) < 1e-12


def found_again(risk):
    return xl.Risk(risk.model, risk.train).loss_gradients()


def balanced(outputs, y):
    """Class weights from the batch: equal on three examples of three classes."""
    counts = torch.bincount(y, minlength=3).to(outputs)
    return single(outputs, y) * counts[y]


def test_weights_from_the_batch_are_refused():
    data = classes(30)
    few_of_one = data[torch.tensor([*range(18), 18, 21, 24, 27])]
    with pytest.raises(ValueError, match="depends on the other examples of its batch"):
        xl.Risk(net(), few_of_one, loss=balanced).loss_gradients()


def clips(outputs, y):
    y[y > 2] = 2.0
    outputs -= outputs.mean(1, keepdim=True)
    return mse_loss(outputs, y, reduction="none").sum(1)


def test_a_loss_that_writes_into_what_it_gets_changes_nothing_of_the_callers():
    y = normal(9, 3).clamp(-1, 1)
    y[3, 1] = 5.0  # not among the first, the middle and the last
    before, data = y.clone(), Examples(normal(9, 3, seed=1), y)
    model = net()
    risk = xl.Risk(model, data, loss=clips, l2=0.1)
    rows, curved = risk.loss_gradients(), xl.curvature.hessian(risk)
    risk.losses(), risk.value()
    assert torch.equal(y, before)
    want = []
    for x, target in zip(data.x, before.clamp(max=2.0), strict=True):
        f = model(x[None])[0]
        value = (f - f.mean() - target).square().sum()
        want.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, [*model.parameters()])]))
    assert relative_error(rows, torch.stack(want)) < 1e-12
    assert torch.isfinite(curved).all()
